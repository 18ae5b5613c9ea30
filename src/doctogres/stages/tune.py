"""tune: patch manifest -> an Optuna study with a child run per trial, and the best settings."""

from typing import TYPE_CHECKING, Any, Final

import mlflow
import yaml

from doctogres.addresses import check_address
from doctogres.errors import ParameterError
from doctogres.files import file_digest, workspace
from doctogres.model.weights import check_all_weights
from doctogres.names import interval
from doctogres.patches.manifest import Manifest
from doctogres.presets import check_space, tuned_values
from doctogres.progress import place, reporter
from doctogres.settings import ENSEMBLE_SETTINGS, SEARCHED_ANSWERS, Preset
from doctogres.spreadsheets import write_csv
from doctogres.tracking.datasets import log_table
from doctogres.tracking.fingerprints import fingerprint
from doctogres.tracking.interrupted import take_over
from doctogres.tracking.runs import SLIDES, StageResult, StageRun, run_stage
from doctogres.tracking.upstream import find_artifact

if TYPE_CHECKING:  # a reused stage imports neither torch nor Optuna
    import optuna

    from doctogres.training.part import TrainingPart
    from doctogres.tuning.study import StudyResult

STUDY_TAG: Final = "doctogres.study"
TRIALS: Final = "doctogres.training.loop"  # the code that determines a trial's score


def tune(
    *, patches: str, preset: Preset, seed: int, storage: str = "", data: str = "", rerun: bool = False
) -> StageResult:
    """Runs or reuses the stage; resumes an interrupted study and joins a running one."""
    check_address("storage", storage)
    check_space(preset)
    upstream = find_artifact(patches, stage="patch", name="patches")
    manifest = Manifest.read(upstream.path)
    url = storage or f"sqlite:///{workspace() / 'optuna.db'}"
    settings = {
        **preset.tune.model_dump(mode="json"),
        **{f"recipe.{k}": v for k, v in tuned_values(preset).items() if k not in ENSEMBLE_SETTINGS},
        "seed": seed,
    }
    inputs = {"patches": file_digest(upstream.path)}

    def body(run: StageRun) -> None:
        check_all_weights(preset)
        from doctogres.training.part import training_parts
        from doctogres.tuning.study import run_study
        from doctogres.tuning.trials import TrialInputs, run_trial, trial_splits

        parts = training_parts(manifest, manifest.patch.views, cache=workspace(), data=data)
        part = next(iter(parts.values()))
        if preset.tune.trial_folds > len(part.folds):
            raise ParameterError(
                f"trial_folds={preset.tune.trial_folds}: the cohort has {len(part.folds)} folds; give a smaller number"
            )
        run.name("", f"{preset.tune.trials} trials")
        log_table(part.patches.table, name="patches", source=upstream.uri, context="tuning", targets="label")
        # More trials continue the same study, and so does another choice among them; `rerun` starts a new one.
        same = {key: value for key, value in settings.items() if key not in {"trials", "best_trial"}}
        name = f"doctogres-{fingerprint(TRIALS, same, inputs)}" + (f"-{run.run_id[:8]}" if rerun else "")
        take_over(STUDY_TAG, name, run.run_id, f"Interrupted; run {run.run_id} continues the study.")
        trials = TrialInputs(parts, manifest.patch, preset, seed)
        trial_splits(preset, trials)  # refuses views that were not cut before anything is trained
        ours: set[int] = set()

        def objective(trial: "optuna.Trial", values: dict[str, Any]) -> float:
            ours.add(trial.number)
            with place(f"trial {trial.number + 1} of {preset.tune.trials}"):
                return run_trial(trial, values, trials)

        with reporter("", "trials") as report:
            result = run_study(
                objective,
                name=name,
                storage=url,
                settings=preset.tune,
                defaults=tuned_values(preset),
                seed=seed,
                report=report,
            )
        _publish(run, result, part, name, ours, preset, seed)

    return run_stage("tune", body, settings=settings, inputs=inputs, data_digest=manifest.data_digest, rerun=rerun)


def _publish(
    run: StageRun, result: "StudyResult", part: "TrainingPart", name: str, ours: set[int], preset: Preset, seed: int
) -> None:
    from matplotlib import pyplot as plt

    from doctogres.report.report import nested_sentence
    from doctogres.tuning.figures import study_figures
    from doctogres.tuning.outcome import finished_numbers, nested_estimate, outcome_of, trial_counts
    from doctogres.tuning.trials import PREDICTED

    outcome, default = outcome_of(result, part, preset.tune), result.default
    kept, note = outcome.kept, outcome.sentence
    assert kept.value is not None  # a complete trial
    counts, finished = trial_counts(result), finished_numbers(result)
    nested = nested_estimate(result, part, preset.tune, resamples=preset.evaluate.resamples, seed=seed)
    answer = {key: value for key, value in kept.params.items() if key in SEARCHED_ANSWERS}
    content = {
        "study": name,
        "trial": kept.number,
        "trials": counts["complete"],
        "slide_macro_f1": kept.value,
        "nested": nested.to_dict() if nested else None,
        "train": {key: value for key, value in kept.params.items() if key not in SEARCHED_ANSWERS},
        "answer": answer,
    }
    run.publish("best_params").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    columns = ("number", "value", "datetime_start", "datetime_complete", "params", "user_attrs", "state")
    table = result.study.trials_dataframe(attrs=columns)
    write_csv(table.drop(columns=f"user_attrs_{PREDICTED}"), run.publish("trials"))
    for title, figure in study_figures(result.study).items():
        figure.savefig(run.attach(f"{title}.png"), dpi=120, bbox_inches="tight")
        plt.close(figure)
    run.name(f"{kept.value:.3f}", f"{len(finished)} trials")
    metrics = {"macro_f1": kept.value, SLIDES: float(len(kept.user_attrs[PREDICTED])), **outcome.metrics}
    metrics |= {f"trials/{state}": count for state, count in counts.items()}
    if nested:
        metrics |= {"nested/macro_f1": nested.value, **interval("nested/macro_f1", nested.low, nested.high)}
        note += f" {nested_sentence(nested)}"
    if default and default.value is not None:
        metrics["default/macro_f1"] = default.value
    run.log_metrics(metrics)
    mlflow.log_param("tune.kept_trial", kept.number)
    elsewhere = len(set(finished) - ours)
    others = f" ({elsewhere} of them from earlier runs or other workers)" if elsewhere else ""
    run.note(f"Trials: {', '.join(f'{count} {state}' for state, count in counts.items())}{others}. {note}")
