"""One trial of a study: a short training run for each of its folds, in its own MLflow run."""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import mlflow
import numpy as np
import optuna

from doctogres.files import workspace
from doctogres.model.aggregation import aggregate_slides
from doctogres.names import metric_name
from doctogres.presets import replaced
from doctogres.settings import Preset
from doctogres.tracking.interrupted import INTERRUPTED, STATE_TAG, end_run
from doctogres.tracking.runs import NOTE_TAG, open_run
from doctogres.training.loop import Epoch, train_network
from doctogres.training.members import FEATURES, reporting
from doctogres.training.part import TrainingPart
from doctogres.tuning.workers import DEFAULT, interrupted_trials

# User attributes of a trial.
RUN: Final = "doctogres.run"  # its MLflow run
PREDICTED: Final = "doctogres.predicted"  # slide -> class index


def run_trial(trial: optuna.Trial, values: dict[str, Any], part: TrainingPart, preset: Preset, seed: int) -> float:
    """Runs a trial in a child run; returns the best epoch's slide-level macro-F1, averaged over the trial's folds."""
    recipe = trial_recipe(preset, values)
    folds = part.folds[: preset.tune.trial_folds]
    with open_run(f"trial-{trial.number:03d}") as child:
        trial.set_user_attr(RUN, child.info.run_id)
        mlflow.log_params({f"train.{key}": value for key, value in values.items()})
        mlflow.set_tags({"doctogres.trial": trial.number, STATE_TAG: "RUNNING"})
        origin = _describe_origin(trial, child.data.tags["mlflow.parentRunId"])
        scores: list[float] = []
        predicted: dict[str, int] = {}
        try:
            for fold in folds:
                train_rows, validation_rows = part.rows(fold)
                trained = train_network(
                    part.samples,
                    train_rows,
                    validation_rows,
                    classes=len(part.classes),
                    settings=recipe.train,
                    seed=seed,
                    on_epoch=_on_epoch(trial, fold, list(scores), preset.tune.trial_epochs),
                    features=workspace() / FEATURES,
                    progress=partial(reporting, f"trial-{trial.number:03d} ({fold} left out)"),
                )
                scores.append(trained.best.slide_macro_f1)
                slides, means = aggregate_slides(
                    part.samples.slide_ids[validation_rows].tolist(),
                    trained.probabilities,
                    part.samples.areas[validation_rows],
                    method="mean",
                )
                predicted |= dict(zip(slides, means.argmax(1).tolist(), strict=True))
        except optuna.TrialPruned as pruned:
            mlflow.set_tags({STATE_TAG: "PRUNED", NOTE_TAG: f"{origin}{pruned}"})
            mlflow.end_run("FINISHED")
            raise
        except KeyboardInterrupt:
            mlflow.set_tag(STATE_TAG, INTERRUPTED)
            raise
        except Exception as error:
            mlflow.set_tags({STATE_TAG: "FAIL", NOTE_TAG: f"{origin}Failed with {type(error).__name__}: {error}"})
            raise
        score = float(np.mean(scores))
        trial.set_user_attr(PREDICTED, predicted)
        mlflow.log_metric("best/slide_macro_f1", score)
        reached = f"Reached a slide-level macro-F1 of {score:.3f} on {', '.join(folds)} ({len(predicted)} slides)."
        mlflow.set_tags({STATE_TAG: "COMPLETE", NOTE_TAG: origin + reached})
        return score


def trial_recipe(preset: Preset, values: dict[str, Any]) -> Preset:
    """The preset with the trial's values; unfreezing is scaled to the trial's epochs, so that it reaches every phase."""
    recipe = replaced(preset, "train", {**values, "epochs": preset.tune.trial_epochs})
    every = recipe.train.unfreeze_every
    scale = preset.tune.trial_epochs / preset.train.epochs
    return replaced(recipe, "train", {"unfreeze_every": max(1, round(every * scale)) if every else 0})


def _on_epoch(trial: optuna.Trial, fold: str, before: list[float], epochs: int) -> Callable[[Epoch], None]:
    """Logs the epoch, reports the mean over this and earlier folds to the pruner, and prunes the trial if asked to."""

    def on_epoch(epoch: Epoch) -> None:
        prefix = f"{fold}/" if before else ""  # the first fold's curves have the same names as in `train`
        mlflow.log_metrics(
            {metric_name(prefix + name): value for name, value in epoch.curves.items()}, step=epoch.epoch
        )
        trial.report(float(np.mean([*before, epoch.slide_macro_f1])), len(before) * epochs + epoch.epoch)
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
