"""One trial of a study: a short training run for each of its folds, in its own MLflow run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import mlflow
import numpy as np
import numpy.typing as npt
import optuna

from doctogres.evaluation.metrics import class_indices, macro_f1
from doctogres.files import workspace
from doctogres.model.fusion import ViewOutputs, logs, slide_probabilities
from doctogres.names import metric_name
from doctogres.pages import markdown
from doctogres.progress import place
from doctogres.settings import ATTENTION, SEARCHED_ANSWERS, PatchSettings, Preset
from doctogres.tracking.interrupted import INTERRUPTED, STATE_TAG, end_run
from doctogres.tracking.runs import NAME_TAG, NOTE_TAG, SLIDES, open_run
from doctogres.training.assessment import own_outputs
from doctogres.training.folds import FEATURES, LeftOutFold, Parts, reporting, split_folds
from doctogres.training.left_out import rows_by_slide
from doctogres.training.loop import Epoch, train_network
from doctogres.training.part import TrainingPart
from doctogres.training.probe_features import ProbeFeatures
from doctogres.training.probes import ProbeSources
from doctogres.training.sources import Source, sources_of
from doctogres.tuning.search import trial_recipe
from doctogres.tuning.workers import DEFAULT, interrupted_trials

# User attributes of a trial.
RUN: Final = "doctogres.run"  # its MLflow run
PREDICTED: Final = "doctogres.predicted"  # slide -> class index


@dataclass(frozen=True)
class TrialInputs:
    """What all trials of a process share.

    Attributes:
        parts: the patches of every view.
        patch: how they were cut.
        preset: the preset of the study.
        seed: of weights, order and augmentation.
        features: of the frozen backbones, computed by the first trial that needs them.
    """

    parts: Parts
    patch: PatchSettings
    preset: Preset
    seed: int
    features: dict[Source, ProbeFeatures] = field(default_factory=dict)


def run_trial(trial: optuna.Trial, values: dict[str, Any], inputs: TrialInputs) -> float:
    """Runs a trial in a child run; returns the slide-level macro-F1 on all slides of the trial's folds."""
    recipe = trial_recipe(inputs.preset, values)
    name = f"trial-{trial.number:03d}"
    with open_run(name) as child:
        trial.set_user_attr(RUN, child.info.run_id)
        mlflow.log_params({f"{_section(key)}.{key}": value for key, value in values.items()})
        mlflow.set_tags({"doctogres.trial": trial.number, STATE_TAG: "RUNNING"})
        origin = _describe_origin(trial, child.data.tags["mlflow.parentRunId"])
        try:
            splits = trial_splits(recipe, inputs)
            score_split = (
                _probe_scorer(recipe, inputs)
                if recipe.train.recipe == "probe"
                else _trained_scorer(trial, recipe, inputs)
            )
            predicted: dict[str, int] = {}
            for number, split in enumerate(splits, 1):
                with place(f"fold {number} of {len(splits)}" if len(splits) > 1 else ""):
                    slides, probabilities = score_split(split)
                predicted |= dict(zip(slides, probabilities.argmax(1).tolist(), strict=True))
        except optuna.TrialPruned as pruned:
            mlflow.set_tags({STATE_TAG: "PRUNED", NAME_TAG: f"pruned {name}", NOTE_TAG: f"{origin}{pruned}"})
            mlflow.end_run("FINISHED")
            raise
        except KeyboardInterrupt:
            mlflow.set_tag(STATE_TAG, INTERRUPTED)
            raise
        except Exception as error:
            note = f"{origin}Failed with {type(error).__name__}: {markdown(error)}"
            mlflow.set_tags({STATE_TAG: "FAIL", NAME_TAG: f"failed {name}", NOTE_TAG: note})
            raise
        score = _score(predicted, next(iter(inputs.parts.values())))
        trial.set_user_attr(PREDICTED, predicted)
        step = sum(map(len, splits)) * inputs.preset.tune.trial_epochs  # after the last epoch of the last network
        mlflow.log_metrics({"macro_f1": score, SLIDES: len(predicted)}, step=step)
        folds = [next(iter(split.values())).fold for split in splits]
        reached = f"Reached a slide-level macro-F1 of {score:.3f} on {', '.join(folds)} ({len(predicted)} slides)."
        mlflow.set_tags({STATE_TAG: "COMPLETE", NAME_TAG: f"{score:.3f} {name}", NOTE_TAG: origin + reached})
        return score


Split = dict[Source, LeftOutFold]
# Trains on a split; returns its left-out slides and their probabilities (slides, classes).
Scorer = Callable[[Split], tuple[list[str], npt.NDArray[np.float64]]]


def trial_splits(recipe: Preset, inputs: TrialInputs) -> list[Split]:
    """The splits that a trial of this recipe is scored on."""
    sources = sources_of(recipe, inputs.patch)
    settings = recipe.train.model_copy(update={"oof_folds": inputs.preset.tune.trial_folds, "repeats": 1})
    return split_folds(settings, inputs.parts, sources, inputs.seed)


def _section(name: str) -> str:
    return "answer" if name in SEARCHED_ANSWERS else "train"


def _score(predicted: dict[str, int], part: TrainingPart) -> float:
    labels = part.slides.set_index("slide_id")["label"]
    truth = class_indices(labels.loc[list(predicted)].tolist(), part.classes)
    return macro_f1(truth, np.array(list(predicted.values())), len(part.classes))


def _probe_scorer(recipe: Preset, inputs: TrialInputs) -> Scorer:
    sources = sources_of(recipe, inputs.patch)
    probes = ProbeSources.load(recipe, inputs.parts, sources, inputs.seed, known=inputs.features)
    probes.compute()
    answer = recipe.answer
    attention = answer.aggregation == ATTENTION

    def score(split: Split) -> tuple[list[str], npt.NDArray[np.float64]]:
        members = probes.members([split], attention=attention, distances=False)
        return members[0].predictions.slides, slide_probabilities(own_outputs(members, answer), answer)

    return score


def _trained_scorer(trial: optuna.Trial, recipe: Preset, inputs: TrialInputs) -> Scorer:
    """Trains every source's network; the slides' probabilities are those of the best epochs, without augmentation.

    There are no turns and no attention heads, neither of which a study with fine-tuning may search.
    """
    answer = recipe.answer
    aggregation = answer.aggregation if answer.aggregation != ATTENTION else "mean"
    scores: list[float] = []

    def score(split: Split) -> tuple[list[str], npt.NDArray[np.float64]]:
        logits: dict[str, list[npt.NDArray[np.float64]]] = {}
        for source, fold in split.items():
            part = inputs.parts[source.view]
            with place(str(source) if len(split) > 1 else ""):
                trained = train_network(
                    part.samples,
                    fold.train,
                    fold.left_out,
                    classes=len(part.classes),
                    settings=source.settings(recipe.train),
                    seed=inputs.seed,
                    on_epoch=_on_epoch(trial, fold.fold, list(scores), inputs.preset.tune.trial_epochs),
                    features=workspace() / FEATURES,
                    progress=reporting,
                )
            scores.append(trained.best.slide_macro_f1)
            logits.setdefault(source.view, []).append(logs(trained.probabilities)[None])
        folds = {source.view: fold for source, fold in split.items()}
        view, fold = next(iter(folds.items()))
        slides = list(dict.fromkeys(inputs.parts[view].samples.slide_ids[fold.left_out].tolist()))
        views = []
        for view, fold in folds.items():
            samples, rows = inputs.parts[view].samples, fold.left_out
            views.append(
                ViewOutputs(view, logits[view], rows_by_slide(samples.slide_ids[rows], slides), samples.areas[rows])
            )
        return slides, slide_probabilities(views, answer, aggregation=aggregation)

    return score


def _on_epoch(trial: optuna.Trial, fold: str, before: list[float], epochs: int) -> Callable[[Epoch], None]:
    """Logs the epoch, reports the mean over this and earlier folds to the pruner, and prunes the trial if asked to."""

    def on_epoch(epoch: Epoch) -> None:
        mean, step = float(np.mean([*before, epoch.slide_macro_f1])), len(before) * epochs + epoch.epoch
        mlflow.log_metric("macro_f1", mean, step=step)  # the first metric, on which a comparison of trials opens
        mlflow.log_metrics(
            {metric_name(f"{fold}/{name}"): value for name, value in epoch.curves.items()}, step=epoch.epoch
        )
        trial.report(mean, step)
        # The preset's own settings are never pruned: everything is compared with them.
        if DEFAULT not in trial.user_attrs and trial.should_prune():
            raise optuna.TrialPruned(
                f"Pruned after epoch {epoch.epoch} on {fold}: its best score is below the median of the finished trials."
            )

    return on_epoch


def _describe_origin(trial: optuna.Trial, stage_run: str) -> str:
    """The origin of the trial's values, for its note; ends the runs of the interrupted trials that it repeats."""
    texts = ["The preset's own settings. "] if DEFAULT in trial.user_attrs else []
    for dead in interrupted_trials(trial):
        mlflow.set_tag("doctogres.retry_of", dead.number)
        texts.append(f"Repeats trial-{dead.number:03d}, whose worker was interrupted. ")
        if run_id := dead.user_attrs.get(RUN):
            end_run(run_id, f"Interrupted; trial-{trial.number:03d} in run {stage_run} repeats it.", stage_run)
    return "".join(texts)
