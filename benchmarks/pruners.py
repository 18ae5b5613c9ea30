"""`python -m benchmarks.pruners DATA --weights FILE`: what a pruner saves between the folds of a trial, and what it costs.

Random probes are scored on every fold of the training slides once. Studies of twenty of them, drawn and ordered at random, are
then replayed with every pruner: after each fold the trial is reported and may be pruned. A pruner is good if few folds are
trained and the study still chooses a recipe that is as good on the slides of all folds as the one it would have chosen without.
"""

import argparse
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import optuna
import pandas as pd

from benchmarks.recipes import Inputs, left_out, markdown
from doctogres.evaluation.metrics import macro_f1
from doctogres.files import WORKSPACE_VARIABLE
from doctogres.presets import load_preset, with_values
from doctogres.settings import TuneSettings
from doctogres.training.folds import split_folds
from doctogres.tuning.search import pruner_of

TRIALS: Final = 20
Pruner = optuna.pruners.BasePruner


@dataclass(frozen=True)
class Scores:
    """One recipe, fold by fold.

    Attributes:
        folds: (folds,) slide-level macro-F1 of the folds so far, after each of them; the last one is of all slides.
        each: (folds,) macro-F1 of each fold alone.
        losses: per fold, (slides,) negative log-probabilities of the true classes.
    """

    folds: npt.NDArray[np.float64]
    each: npt.NDArray[np.float64]
    losses: list[npt.NDArray[np.float64]]


def scored(inputs: Inputs, recipes: int, rng: np.random.Generator) -> list[Scores]:
    """Random probes of the windows, scored on every fold."""
    part = next(iter(inputs.parts.values()))
    labels_of = part.slides.set_index("slide_id")["label"].astype(str)
    truth = {slide: part.classes.index(label) for slide, label in labels_of.items()}
    found = []
    for number in range(recipes):
        values = {
            "views": "window", "head": str(rng.choice(["logistic", "lda"])), "logistic_c": 10 ** rng.uniform(-5, 0),
            "lda_shrinkage": rng.uniform(0, 1), "aggregation": str(rng.choice(["mean", "log_mean", "max_confidence"])),
            "tta": bool(rng.integers(2)),
        }  # fmt: skip
        recipe = with_values(inputs.preset, values)
        probes = inputs.known(recipe)
        members = probes.members(
            split_folds(recipe.train, inputs.parts, list(probes.features), inputs.seed), attention=False
        )
        labels: list[int] = []
        predicted: list[int] = []
        folds, each, losses = [], [], []
        for slides, probabilities in left_out(members, recipe):
            own = [truth[slide] for slide in slides]
            losses.append(-np.log(np.maximum(probabilities[np.arange(len(own)), own], 1e-6)))
            chosen = probabilities.argmax(1).tolist()
            labels, predicted = labels + own, predicted + chosen
            folds.append(macro_f1(np.array(labels), np.array(predicted), len(part.classes)))
            each.append(macro_f1(np.array(own), np.array(chosen), len(part.classes)))
        found.append(Scores(np.array(folds), np.array(each), losses))
        print(f"recipe {number}: {folds[-1]:.3f} {values}", flush=True)
    return found


def replayed(
    recipes: list[Scores], pruner: Pruner, report: Callable[[optuna.Trial, Scores, int], None]
) -> tuple[int, float]:
    """How many folds the study trains, and the macro-F1 of its best finished trial."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    trained = 0
    for recipe in recipes:
        trial = study.ask()
        for fold in range(len(recipe.folds)):
            trained += 1
            report(trial, recipe, fold)
            if fold < len(recipe.folds) - 1 and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, float(recipe.folds[-1]))
    return trained, study.best_value  # Optuna's: the best of the trials that were not pruned


def _so_far(trial: optuna.Trial, recipe: Scores, fold: int) -> None:
    trial.report(float(recipe.folds[fold]), fold)


def _each_fold(trial: optuna.Trial, recipe: Scores, fold: int) -> None:
    trial.report(float(recipe.each[fold]), fold)


def _each_slide(trial: optuna.Trial, recipe: Scores, fold: int) -> None:
    first = sum(map(len, recipe.losses[:fold]))
    for number, loss in enumerate(recipe.losses[fold]):
        trial.report(-float(loss), first + number)


def wilcoxon() -> Pruner:
    """Optuna's, with its default threshold."""
    return optuna.pruners.WilcoxonPruner(p_threshold=0.1, n_startup_steps=2)


WAYS: Final[dict[str, tuple[Callable[[], Pruner], Callable[[optuna.Trial, Scores, int], None]]]] = {
    "none": (optuna.pruners.NopPruner, _so_far),
    "median of the folds so far (in use)": (lambda: pruner_of(TuneSettings(trial_epochs=1)), _so_far),
    "Wilcoxon, a value per fold": (wilcoxon, _each_fold),
    "Wilcoxon, a value per slide": (wilcoxon, _each_slide),
}


def table(recipes: list[Scores], studies: int, rng: np.random.Generator) -> pd.DataFrame:
    """A row per pruner, over the same studies."""
    drawn = [[recipes[k] for k in rng.permutation(len(recipes))[:TRIALS]] for _ in range(studies)]
    rows = {}
    best = np.array([max(recipe.folds[-1] for recipe in study) for study in drawn])
    for name, (pruner, report) in WAYS.items():
        trained, chosen = np.array([replayed(study, pruner(), report) for study in drawn]).T
        loss = best - chosen
        rows[name] = {
            "folds trained": f"{trained.mean() / (TRIALS * len(recipes[0].folds)):.0%}",
            "best recipe kept": f"{(loss < 1e-12).mean():.0%}",
            "loss of macro-F1, mean": f"{loss.mean():.4f}",
            "loss, 95th percentile": f"{np.quantile(loss, 0.95):.4f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("pruner")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--recipes", type=int, default=80)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--cache", type=Path, help="folder that keeps the features")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ[WORKSPACE_VARIABLE] = str(options.cache or temporary)
        inputs = Inputs.prepare(
            options.data.resolve(), load_preset("small", {"weights": options.weights}), options.seed
        )
        print(markdown(table(scored(inputs, options.recipes, rng), options.studies, rng)))


if __name__ == "__main__":
    main()
