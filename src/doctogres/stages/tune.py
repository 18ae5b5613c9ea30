"""tune: the patch manifest -> an Optuna study, a child run per trial, and the best recipe."""

from pathlib import Path
from typing import Any

import mlflow
import optuna
import yaml

from doctogres.datasets import log_table
from doctogres.patches import read_manifest
from doctogres.progress import reporter
from doctogres.settings import Preset, replaced
from doctogres.stages import workspace
from doctogres.stages.train import CURVES, TrainingPart, training_part
from doctogres.tracking import StageResult, StageRun, digest_of, file_digest, run_stage
from doctogres.training.loop import Epoch, train_network
from doctogres.tuning import StudyResult, run_study, study_figures
from doctogres.upstream import find_artifact


def tune(
    *, patches: str, preset: Preset, seed: int, storage: str = "", data: str = "", force: bool = False
) -> StageResult:
    """Runs or reuses the stage; an interrupted study goes on where it stopped."""
    upstream = find_artifact(patches, stage="patch", name="patches", file="patches.parquet")
    manifest = read_manifest(upstream.path)
    url = storage or f"sqlite:///{workspace() / 'optuna.db'}"
    settings = {
        **preset.tune.model_dump(mode="json"),
        **{f"recipe.{k}": v for k, v in preset.train.model_dump().items()},
        "seed": seed,
    }
    inputs = {"patches": file_digest(upstream.path)}

    def body(run: StageRun) -> None:
        part = training_part(manifest, data)
        log_table(part.patches.table, name="patches", source=upstream.uri, context="tuning", targets="label")
        report = reporter("tune", "trials")

        def objective(trial: optuna.Trial, values: dict[str, Any]) -> float:
            score = run_trial(trial, values, part, preset, seed)
            report(trial.number + 1, preset.tune.trials)
            return score

        # A forced repetition is a new study; an interrupted one has the same name and goes on.
        name = f"doctogres-{digest_of(settings, inputs)}" + (f"-{run.run_id[:8]}" if force else "")
        result = run_study(
            objective,
            name=name,
            storage=url,
            settings=preset.tune,
            defaults=preset.train.model_dump(),
            seed=seed,
        )
        _publish(run, result, name)

    return run_stage(
        "tune", body, settings=settings, inputs=inputs, data_digest=manifest.attrs["data_digest"], force=force
    )


def run_trial(trial: optuna.Trial, values: dict[str, Any], part: TrainingPart, preset: Preset, seed: int) -> float:
    """One trial in its child run: trains on all folds but one, reports every epoch, returns the best slide-level macro-F1."""
    recipe = replaced(preset, "train", {**values, "epochs": preset.tune.trial_epochs})
    # The schedule shrinks with the trial, so that a trial passes through all its phases as the full training does.
    shrink = preset.tune.trial_epochs / preset.train.epochs
    recipe = replaced(
        recipe,
        "train",
        {"unfreeze_every": max(1, round(preset.train.unfreeze_every * shrink)) if preset.train.unfreeze_every else 0},
    )
    fold = part.folds[0]
    train_rows, validation_rows = part.rows(fold)
    with mlflow.start_run(run_name=f"trial-{trial.number:03d}", nested=True):
        mlflow.log_params({f"train.{key}": value for key, value in values.items()})
        mlflow.set_tags({"doctogres.trial": trial.number, "doctogres.trial_state": "RUNNING"})

        def on_epoch(epoch: Epoch) -> None:
            mlflow.log_metrics({name: float(getattr(epoch, name)) for name in CURVES}, step=epoch.epoch)
            trial.report(epoch.slide_macro_f1, epoch.epoch)
            if trial.should_prune():
                mlflow.set_tag("doctogres.trial_state", "PRUNED")
                mlflow.set_tag(
                    "mlflow.note.content",
                    f"Pruned after epoch {epoch.epoch}: below the median of the trials before it.",
                )
                raise optuna.TrialPruned

        try:
            trained = train_network(
                part.samples, train_rows, validation_rows,
                classes=len(part.classes), settings=recipe.train, seed=seed, on_epoch=on_epoch,
            )  # fmt: skip
        except optuna.TrialPruned:
            mlflow.end_run("FINISHED")
            raise
        score = trained.best.slide_macro_f1
        mlflow.log_metric("best/slide_macro_f1", score)
        mlflow.set_tag("doctogres.trial_state", "COMPLETE")
        mlflow.set_tag(
            "mlflow.note.content",
            f"Reached a slide-level macro-F1 of {score:.3f} on {fold} in {len(trained.history)} epochs.",
        )
        return score


def _publish(run: StageRun, result: StudyResult, name: str) -> None:
    best = result.study.best_trial
    states = [trial.state.name.lower() for trial in result.study.get_trials()]
    counts = {state: states.count(state) for state in sorted(set(states))}
    content = {"study": name, "trial": best.number, "slide_macro_f1": best.value, "train": result.best}
    run.publish("best_params", "best_params.yaml").write_text(
        yaml.safe_dump(content, sort_keys=False), encoding="utf-8"
    )
    result.study.trials_dataframe().to_csv(run.publish("trials", "trials.csv"), index=False)
    for title, figure in study_figures(result.study).items():
        path: Path = run.attach(f"{title}.png")
        figure.savefig(path, dpi=120, bbox_inches="tight")
    value = result.default.value if result.default else None
    default = f"{value:.3f}" if value is not None else "no value"
    run.name(f"tune · {len(states)} trials")
    run.log_metrics(
        {
            "best/slide_macro_f1": float(best.value or 0),
            "best/trial": best.number,
            **{f"trials/{k}": v for k, v in counts.items()},
        }
    )
    run.note(
        f"{', '.join(f'{count} {state}' for state, count in counts.items())} trials; the best is trial {best.number} with a "
        f"slide-level macro-F1 of {best.value:.3f} on the validation fold. The preset's own recipe reached {default}."
    )
