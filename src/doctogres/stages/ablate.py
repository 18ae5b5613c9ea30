"""ablate: every row of the ablation ladder, trained with several seeds and scored on the same hold-out slides."""

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import mlflow
import numpy as np
import pandas as pd
from mlflow.tracking import MlflowClient

from doctogres.cleaning.decisions import read_decisions
from doctogres.errors import DoctogresError
from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.predictions import Predictions
from doctogres.evaluation.scores import Scores
from doctogres.files import file_digest, workspace
from doctogres.model.weights import check_all_weights
from doctogres.names import interval
from doctogres.pages import markdown
from doctogres.presets import check_space, replaced
from doctogres.progress import place
from doctogres.remote import local
from doctogres.settings import OF_RECIPE, Preset
from doctogres.slides.cohort import content_digest, file_hashes, find_slides, open_cohort, slide_files
from doctogres.slides.formats import max_pixels
from doctogres.slides.labels import column_names
from doctogres.slides.layout import LABELS
from doctogres.slides.splits import HOLDOUT
from doctogres.slides.table import DROPPED, KEPT, CohortTable
from doctogres.spreadsheets import write_csv
from doctogres.stages.clean import clean
from doctogres.stages.evaluate import evaluate
from doctogres.stages.patch import patch
from doctogres.stages.train import NO_PARAMS, read_params, train
from doctogres.stages.tune import tune
from doctogres.tracking.interrupted import take_over
from doctogres.tracking.runs import FINGERPRINT_TAG, NAME_TAG, NOTE_TAG, SECONDS, StageResult, StageRun, run_stage
from doctogres.tracking.upstream import find_artifact
from doctogres.tracking.view import compare_link

BASELINE_CNN: Final = "test_resnet"  # timm's smallest residual network, 0.4 million parameters
FROM_SCRATCH: Final = {"backbone": BASELINE_CNN, "weights": "none", "stages": 0, "start": "random", "unfreeze_every": 0}
ONE_NETWORK: Final = {"oof_folds": 1, "repeats": 1, "ensemble": False}
PROBE: Final = {"recipe": "probe", "oof_folds": 0}
POOLED: Final = {"tta": True, "aggregation": "log_mean"}
SECTIONS: Final = ("patch", "train", "answer")  # preset sections that a row may change


@dataclass(frozen=True)
class Row:
    """A row of the ladder: its changes to the preset, which is reduced to one network and no test-time augmentation."""

    name: str
    cleaned: bool = True
    tuned: bool = False
    patch: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, Any] = field(default_factory=dict)

    def recipe(self, preset: Preset) -> Preset:
        """The preset with the row's changes; tuned settings are applied later."""
        recipe = replaced(preset, "patch", {"patching": "regions", **self.patch})
        recipe = replaced(recipe, "train", {"recipe": "finetune", "views": "", **ONE_NETWORK, **self.train})
        pooled = {"tta": False, "aggregation": "mean", **self.answer}
        if recipe.train.recipe == "finetune":  # the preset's fusion may be one that only a probe can have
            pooled["fusion"] = "probabilities"
        return replaced(recipe, "answer", pooled)


def fine_tuned(preset: Preset) -> Preset:
    """The preset of the ladder's study: fine-tuning on tight boxes, without the settings that only a probe uses."""
    recipe = Row("study").recipe(preset)
    excluded = {"recipe", "views", "aggregation", "tta"} | OF_RECIPE["probe"]
    space = {name: values for name, values in preset.tune.space.items() if name not in excluded}
    return replaced(recipe, "tune", {"space": space})


# Each row adds one step to the row before it: the original team's ladder, what the preset's training adds, and the probes.
LADDER: Final = (
    Row("whole-picture CNN", cleaned=False, patch={"patching": "whole"}, train=FROM_SCRATCH),
    Row("+ data cleaning", patch={"patching": "whole"}, train=FROM_SCRATCH),
    Row("+ patch extraction", patch={"min_area": 1}, train=FROM_SCRATCH),
    Row("+ the preset's backbone and weights", patch={"min_area": 1}, train={"unfreeze_every": 0}),
    Row("+ progressive unfreezing", patch={"min_area": 1}),
    Row("+ patch filter"),
    Row("+ tuned settings", tuned=True),
    Row(
        "+ calibrated fold ensemble, test-time augmentation",
        tuned=True,
        train={"oof_folds": 0, "ensemble": True},
        answer={"tta": True},
    ),
    Row("probe on tight boxes", train=PROBE, answer=POOLED),
    Row("+ windows with their surroundings", patch={"patching": "window"}, train=PROBE, answer=POOLED),
    Row("+ both views", patch={"patching": "window,regions"}, train=PROBE, answer=POOLED),
)


def uncleaned(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the slides that cleaning dropped put back into training, as without cleaning.

    Only slides with a twin are restored, into the twin's fold, and none whose twin is in the hold-out: a copy in the
    training folds would inflate the row's score.
    """
    table = table.copy()
    fold_of = table.set_index("slide_id")["fold"].to_dict()
    fold = table["twin_of"].map(fold_of)
    restored = (table["outcome"] == DROPPED) & fold.notna() & (fold != HOLDOUT)
    table.loc[restored, "fold"] = fold[restored]
    table.loc[restored, "outcome"] = KEPT
    group_of = table.set_index("slide_id")["group"].to_dict()
    table.loc[restored, "group"] = table.loc[restored, "twin_of"].map(group_of)
    return table


def ablate(
    *,
    data: str,
    preset: Preset,
    seed: int,
    decisions: str = "",
    ignore_columns: str = "",
    annotations: str = "",
    rerun: bool = False,
) -> StageResult:
    """Runs or reuses the ladder for the cohort at `data`; finished training runs are reused in either case."""
    check_space(preset)
    check_space(fine_tuned(preset))  # the study's settings, and those of every row: refused before anything is trained
    recipes = [row.recipe(preset) for row in LADDER]
    decided = local(decisions) if decisions else None
    root = open_cohort(data, workspace=workspace())
    ignored = column_names(ignore_columns)
    found = find_slides(root, ignore_columns=ignored)
    if decided:
        read_decisions(decided, found["slide_id"])
    digest = content_digest(file_hashes(root, [LABELS, *slide_files(root, found)]))
    sections = {"clean", *SECTIONS, "tune", "evaluate", "ablate"}
    content = preset.model_dump(mode="json", include=sections)
    settings = {f"{section}.{name}": value for section, values in content.items() for name, value in values.items()}
    settings |= {
        "seed": seed,
        "max_pixels": max_pixels(),
        "ignore_columns": ",".join(ignored),
        "annotations": annotations,
    }
    inputs = {
        "data": digest,
        "decisions": file_digest(decided) if decided else "none",
    }

    def body(run: StageRun) -> None:
        check_all_weights(preset)
        take_over(FINGERPRINT_TAG, run.fingerprint, run.run_id, f"Interrupted; run {run.run_id} continues the ladder.")
        cleaned = clean(
            data=data,
            preset=preset,
            seed=seed,
            decisions=decisions,
            ignore_columns=ignore_columns,
            annotations=annotations,
        )
        before = _publish_uncleaned(run, cleaned)
        trained: list[TrainedRow] = []
        for number, (row, recipe) in enumerate(zip(LADDER, recipes, strict=True), 1):
            cohort = cleaned.run_id if row.cleaned else before
            above = trained[-1] if trained else None
            with place(f"row {number} of {len(LADDER)}"):
                trained.append(_run_row(number, row, recipe, above, cohort, data, preset, seed))
            mlflow.log_metric("macro_f1", trained[-1].macro_f1, step=number)
        _publish(run, trained, preset, seed)

    return run_stage("ablate", body, settings=settings, inputs=inputs, data_digest=digest, rerun=rerun)


def _publish_uncleaned(run: StageRun, cleaned: StageResult) -> str:
    """Logs the uncleaned cohort table immediately, because the stages of its row read it from the run."""
    source = find_artifact(cleaned.run_id, stage="clean", name="cohort")
    cohort = CohortTable.read(source.path)
    path = run.publish("uncleaned")
    replace(cohort, rows=uncleaned(cohort.rows)).write(path)
    mlflow.log_artifact(str(path), "uncleaned")
    return run.artifacts["uncleaned"]


@dataclass(frozen=True)
class TrainedRow:
    """A row's run with its stages' results and its final settings."""

    name: str
    run_id: str
    recipe: dict[str, Any]  # every setting that a row may change
    changes: str  # against the row before
    evaluations: list[StageResult]
    macro_f1: float  # the mean over the seeds
    seconds: float  # of its stages, as measured when they ran


def _run_row(
    number: int, row: Row, recipe: Preset, above: TrainedRow | None, cohort: str, data: str, preset: Preset, seed: int
) -> TrainedRow:
    title = f"row-{number} {row.name}"
    with mlflow.start_run(run_name=title, nested=True) as run, naming(title):
        cut = patch(cohort=cohort, preset=recipe, data=data)
        results, evaluations, params = [cut], [], NO_PARAMS
        if row.tuned:  # the first tuned row runs the study, the others reuse it
            results.append(tune(patches=cut.run_id, preset=fine_tuned(preset), seed=seed, data=data))
            params = results[-1].run_id
        used = _flat(read_params(params).applied_to(recipe)) | {"cleaned": row.cleaned}
        changed = changes(above.recipe, used) if above else ""
        mlflow.log_params(used | {"seeds": preset.ablate.seeds, "changes": changed or "first row"})
        for count, row_seed in enumerate(range(seed, seed + preset.ablate.seeds), 1):
            started = perf_counter()
            with naming(f"seed {row_seed}"), place(f"seed {count} of {preset.ablate.seeds}"):
                trained = train(patches=cut.run_id, params=params, preset=recipe, seed=row_seed, data=data)
                evaluations.append(
                    evaluate(model=trained.run_id, cohort=cohort, split=HOLDOUT, preset=recipe, seed=seed, data=data)
                )
            results += [trained, evaluations[-1]]
            score = evaluations[-1].metrics["macro_f1"]
            mean = float(np.mean([scored.metrics["macro_f1"] for scored in evaluations]))
            mlflow.log_metric(
                "macro_f1", mean, step=count
            )  # logged first because the UI's comparison plots the first metric
            mlflow.log_metric("seed_macro_f1", score, step=row_seed)
            print(
                f"ablate: {title}: seed {row_seed} ({count} of {preset.ablate.seeds}): macro-F1 {score:.3f}, "
                f"{perf_counter() - started:.1f} s; {len(LADDER) - number} rows left",
                flush=True,
            )
        stages = [mlflow.get_run(run_id) for run_id in dict.fromkeys(result.run_id for result in results)]
        seconds = round(sum(stage.data.metrics[SECONDS] for stage in stages), 1)
        mlflow.log_metric(SECONDS, seconds)
    return TrainedRow(row.name, run.info.run_id, used, changed, evaluations, mean, seconds)


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Adds to an error the place on the ladder where it occurred."""
    try:
        yield
    except DoctogresError as error:
        raise type(error)(f"{place}: {error}") from error
    except Exception as error:
        error.add_note(f"This happened at {place}; run the same command again to continue there.")
        raise


def _flat(recipe: Preset) -> dict[str, Any]:
    return {name: value for section in SECTIONS for name, value in getattr(recipe, section).model_dump().items()}


def changes(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The settings that differ, with their new values: `min_area=200`; `nothing` if there are none."""
    changed = {name: value for name, value in after.items() if value != before[name]}
    texts = [
        f"{name}={value:.3g}"
        if isinstance(value, float)
        else f"{name}={Path(value).name if name == 'weights' else value}"
        for name, value in changed.items()
    ]
    return ", ".join(texts) or "nothing"


def _publish(run: StageRun, trained: list[TrainedRow], preset: Preset, seed: int) -> None:
    from doctogres.evaluation.ladder import ScoredRow, ladder_table
    from doctogres.report.figures import png_bytes
    from doctogres.report.ladder import ladder_figure, ladder_markdown

    scores = [_scores(row.evaluations[0]) for row in trained]
    classes = list(dict.fromkeys(name for row_scores in scores for name in row_scores.classes))
    rows = [
        ScoredRow(
            row.name,
            [_predictions(scored) for scored in row.evaluations],
            row.changes,
            row.seconds,
            [scored.run_id for scored in row.evaluations],
        )
        for row in trained
    ]
    table = ladder_table(rows, classes, resamples=preset.evaluate.resamples, seed=seed)
    null = scores[-1].null
    text = ladder_markdown(table, null, scores[0].slides)
    write_csv(table, run.publish("ladder"))
    run.publish("ladder_md").write_text(text, encoding="utf-8")
    run.publish("ladder_png").write_bytes(png_bytes(ladder_figure(table, null)))
    for number, (row, line) in enumerate(zip(trained, table.to_dict("records"), strict=True), 1):
        _finish_row(row.run_id, number, line)
    run.name(f"{trained[-1].macro_f1:.3f}", f"{len(table)} rows, {preset.ablate.seeds} seeds")
    link = compare_link([row.run_id for row in trained])
    note = f"{text}\n[Compare the rows' runs]({link}). The figure is in `ladder.png`, every number in `ladder.csv`."
    run.note(note, is_markdown=True)
    # For the JSON line; in MLflow they are in the rows' curve and in the evaluations.
    run.metrics |= {"first/macro_f1": trained[0].macro_f1, "last/macro_f1": trained[-1].macro_f1}
    run.metrics |= {f"null/{name}": estimate.value for name, estimate in null.items()}
    print(text, flush=True)


def _scores(scored: StageResult) -> Scores:
    return Scores.read(find_artifact(scored.run_id, stage="evaluate", name="metrics").path)


def _predictions(scored: StageResult) -> Predictions:
    return Predictions.read_csv(find_artifact(scored.run_id, stage="evaluate", name="predictions").path)


def _finish_row(run_id: str, number: int, line: Mapping[Hashable, Any]) -> None:
    """Logs a row's intervals and its difference to its run, which need the other rows."""
    metrics = {"difference": line["difference"], **interval("macro_f1", line["low"], line["high"])}
    metrics |= interval("difference", line["difference_low"], line["difference_high"])
    mlflow.log_metrics({name: value for name, value in metrics.items() if value == value}, run_id=run_id)
    reached = f"Row {number}: macro-F1 {Estimate(line['macro_f1'], line['low'], line['high'])}."
    difference = Estimate(line["difference"], line["difference_low"], line["difference_high"])
    step = f" Difference from the row before: {difference} ({line['verdict']}). Changed settings: {markdown(line['changes'])}."
    MlflowClient().set_tag(run_id, NOTE_TAG, reached + (step if line["verdict"] else ""))
    MlflowClient().set_tag(run_id, "doctogres.verdict", line["verdict"])
    MlflowClient().set_tag(run_id, NAME_TAG, f"{line['macro_f1']:.3f} row-{number} {line['row']}")
