"""tune: the patch manifest -> an Optuna study, a child run per trial, and the best recipe."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import mlflow
import numpy as np
import optuna
import yaml
from matplotlib import pyplot as plt
from optuna.trial import FrozenTrial, TrialState

from doctogres.errors import ParameterError
from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.comparison import compare
from doctogres.files import file_digest, workspace
from doctogres.model.aggregation import aggregate_slides
from doctogres.patches.manifest import Manifest
from doctogres.presets import check_default_in_space, replaced
from doctogres.progress import reporter
from doctogres.settings import ENSEMBLE_SETTINGS, Preset
from doctogres.tracking.datasets import log_table
from doctogres.tracking.fingerprints import fingerprint
from doctogres.tracking.interrupted import STATE_TAG, end_run, take_over
from doctogres.tracking.runs import NOTE_TAG, StageResult, StageRun, metric_name, run_stage
from doctogres.tracking.upstream import find_artifact
from doctogres.training.loop import CURVES, Epoch, train_network
from doctogres.training.members import FEATURES, reporting
from doctogres.training.part import TrainingPart, training_part
from doctogres.tuning.figures import study_figures
from doctogres.tuning.study import StudyResult, run_study
from doctogres.tuning.workers import DEFAULT, ERROR, FINISHED, interrupted_trials

STUDY_TAG: Final = "doctogres.study"
TRIALS: Final = "doctogres.training.loop"  # the code that decides what a trial reaches
# User attributes of a trial.
RUN: Final = "doctogres.run"  # its MLflow run
PREDICTED: Final = "doctogres.predicted"  # slide -> class index


def tune(
    *, patches: str, preset: Preset, seed: int, storage: str = "", data: str = "", rerun: bool = False
) -> StageResult:
    """Runs or reuses the stage; an interrupted study goes on where it stopped, a running one is joined."""
    check_default_in_space(preset)
    upstream = find_artifact(patches, stage="patch", name="patches")
    manifest = Manifest.read(upstream.path)
    url = storage or f"sqlite:///{workspace() / 'optuna.db'}"
    settings = {
        **preset.tune.model_dump(mode="json"),
        **{f"recipe.{k}": v for k, v in preset.train.model_dump(exclude=set(ENSEMBLE_SETTINGS)).items()},
        "seed": seed,
    }
    inputs = {"patches": file_digest(upstream.path)}

    def body(run: StageRun) -> None:
        part = training_part(manifest, cache=workspace(), data=data)
        if preset.tune.trial_folds > len(part.folds):
            raise ParameterError(
                f"trial_folds={preset.tune.trial_folds}: the cohort has {len(part.folds)} folds; give at most that"
            )
        run.name(f"tune · {preset.tune.trials} trials")
        log_table(part.patches.table, name="patches", source=upstream.uri, context="tuning", targets="label")
        # More trials are the same study; a forced repetition is a new one.
        same = {key: value for key, value in settings.items() if key != "trials"}
        name = f"doctogres-{fingerprint(TRIALS, same, inputs)}" + (f"-{run.run_id[:8]}" if rerun else "")
        take_over(STUDY_TAG, name, run.run_id, f"Interrupted; the study goes on in run {run.run_id}.")
        own: set[int] = set()

        def objective(trial: optuna.Trial, values: dict[str, Any]) -> float:
            own.add(trial.number)
            return run_trial(trial, values, part, preset, seed)

        with reporter("tune", "trials") as report:
            result = run_study(
                objective,
                name=name,
                storage=url,
                settings=preset.tune,
                defaults=preset.train.model_dump(),
                seed=seed,
                report=report,
            )
        _publish(run, result, part, name, own)

    return run_stage("tune", body, settings=settings, inputs=inputs, data_digest=manifest.data_digest, rerun=rerun)


def run_trial(trial: optuna.Trial, values: dict[str, Any], part: TrainingPart, preset: Preset, seed: int) -> float:
    """One trial in its child run; returns the best epoch's slide-level macro-F1, averaged over the trial's folds."""
    recipe = trial_recipe(preset, values)
    folds = part.folds[: preset.tune.trial_folds]
    with mlflow.start_run(run_name=f"trial-{trial.number:03d}", nested=True) as child:
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
        except (Exception, KeyboardInterrupt) as error:
            mlflow.set_tags({STATE_TAG: "FAIL", NOTE_TAG: f"{origin}Ended by {type(error).__name__}: {error}"})
            raise
        score = float(np.mean(scores))
        trial.set_user_attr(PREDICTED, predicted)
        mlflow.log_metric("best/slide_macro_f1", score)
        reached = f"Reached a slide-level macro-F1 of {score:.3f} on {', '.join(folds)} ({len(predicted)} slides)."
        mlflow.set_tags({STATE_TAG: "COMPLETE", NOTE_TAG: origin + reached})
        return score


def trial_recipe(preset: Preset, values: dict[str, Any]) -> Preset:
    """The preset with the trial's values; the unfreezing shrinks with the epochs, so that a trial passes all its phases."""
    recipe = replaced(preset, "train", {**values, "epochs": preset.tune.trial_epochs})
    every = recipe.train.unfreeze_every
    shrink = preset.tune.trial_epochs / preset.train.epochs
    return replaced(recipe, "train", {"unfreeze_every": max(1, round(every * shrink)) if every else 0})


def _on_epoch(trial: optuna.Trial, fold: str, before: list[float], epochs: int) -> Callable[[Epoch], None]:
    """Logs the epoch, tells the pruner the mean over this fold and the ones before it, and ends the trial if told to."""

    def on_epoch(epoch: Epoch) -> None:
        prefix = f"{fold}/" if before else ""  # the first fold's curves have the names that `train` gives
        mlflow.log_metrics(
            {metric_name(prefix + name): float(getattr(epoch, name)) for name in CURVES}, step=epoch.epoch
        )
        trial.report(float(np.mean([*before, epoch.slide_macro_f1])), len(before) * epochs + epoch.epoch)
        # The preset's own recipe is never pruned: everything is compared with it.
        if DEFAULT not in trial.user_attrs and trial.should_prune():
            raise optuna.TrialPruned(
                f"Pruned after epoch {epoch.epoch} on {fold}: its best so far is below the median of the finished trials."
            )

    return on_epoch


def _describe_origin(trial: optuna.Trial, stage_run: str) -> str:
    """Where the trial's values come from, for its note; the runs of the interrupted trials that it repeats are ended."""
    texts = ["The preset's own recipe. "] if DEFAULT in trial.user_attrs else []
    for dead in interrupted_trials(trial):
        mlflow.set_tag("doctogres.retry_of", dead.number)
        texts.append(f"Repeats trial-{dead.number:03d}, whose worker was interrupted. ")
        if run_id := dead.user_attrs.get(RUN):
            end_run(run_id, f"Interrupted; trial-{trial.number:03d} in run {stage_run} repeats it.", stage_run)
    return "".join(texts)


def _publish(run: StageRun, result: StudyResult, part: TrainingPart, name: str, own: set[int]) -> None:
    best, default = result.best_trial, result.default
    assert best.value is not None  # a complete trial
    content = {"study": name, "trial": best.number, "slide_macro_f1": best.value, "train": result.best}
    run.publish("best_params").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    trials = result.study.get_trials(deepcopy=False)
    columns = ("number", "value", "datetime_start", "datetime_complete", "params", "user_attrs", "state")
    table = result.study.trials_dataframe(attrs=columns)
    table.drop(columns=f"user_attrs_{PREDICTED}").to_csv(run.publish("trials"), index=False)
    for title, figure in study_figures(result.study).items():
        figure.savefig(run.attach(f"{title}.png"), dpi=120, bbox_inches="tight")
        plt.close(figure)
    counts = Counter(map(_state, trials))
    finished = [trial.number for trial in trials if trial.state in FINISHED]
    run.name(f"tune · {len(finished)} trials")
    run.log_metrics(
        {
            "best/slide_macro_f1": best.value,
            "best/trial": best.number,
            **({"default/slide_macro_f1": default.value} if default and default.value is not None else {}),
            **{f"trials/{state}": count for state, count in counts.items()},
        }
    )
    elsewhere = len(set(finished) - own)
    others = f" ({elsewhere} of them ran in earlier runs or by other workers)" if elsewhere else ""
    listed = ", ".join(f"{count} {state}" for state, count in counts.items())
    run.note(f"Trials: {listed}{others}. {_verdict(run, best, default, part)}")


def _state(trial: FrozenTrial) -> str:
    interrupted = trial.state == TrialState.FAIL and ERROR not in trial.user_attrs
    return "interrupted" if interrupted else trial.state.name.lower()


def _verdict(run: StageRun, best: FrozenTrial, default: FrozenTrial | None, part: TrainingPart) -> str:
    """What the study gained over the preset's own recipe, with its interval; logs both."""
    reached = f"The best is trial-{best.number:03d} with a slide-level macro-F1 of {best.value:.3f}"
    if default is None:
        return f"{reached}; the preset's own recipe was not completed, so there is nothing to compare it with."
    if best.number == default.number:
        return f"{reached}: the preset's own recipe, which no other trial beat."
    gain, slides = gain_over(default, best, part)
    run.log_metrics({"gain/slide_macro_f1": gain.value, "gain/low": gain.low, "gain/high": gain.high})
    lies = (
        "The interval holds zero: on so many slides the difference is not distinguishable from noise."
        if gain.low <= 0
        else "The best of several trials was chosen on these very slides, so expect less on others."
    )
    return (
        f"{reached}, the preset's own recipe reached {default.value:.3f}. "
        f"Difference on the same {slides} slides, with its 95 % interval: {gain}. {lies}"
    )


def gain_over(default: FrozenTrial, best: FrozenTrial, part: TrainingPart) -> tuple[Estimate, int]:
    """Slide-level macro-F1 of the best trial minus the default's, by the paired bootstrap, and the number of slides."""
    slides = sorted(best.user_attrs[PREDICTED])
    table = part.patches.table.drop_duplicates("slide_id").set_index("slide_id").loc[slides]
    best_rows, default_rows = (
        np.eye(len(part.classes))[[trial.user_attrs[PREDICTED][slide] for slide in slides]] for trial in (best, default)
    )
    models, pair = {"best": [best_rows], "default": [default_rows]}, {"best": "default"}
    compared = compare(table["label"].tolist(), models, part.classes, against=pair, groups=table["group"].tolist())
    return compared.differences["best"], len(slides)
