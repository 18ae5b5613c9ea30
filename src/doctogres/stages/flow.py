"""main: all stages in one process, as runs nested in one; ends with what a person wants to know."""

import json
from pathlib import Path
from typing import Any, Final

import mlflow

from doctogres.cohort import open_cohort
from doctogres.settings import Preset, check_default_in_space
from doctogres.stages import workspace
from doctogres.stages.clean import clean
from doctogres.stages.evaluate import evaluate
from doctogres.stages.patch import patch
from doctogres.stages.predict import predict
from doctogres.stages.register import register
from doctogres.stages.train import train
from doctogres.stages.tune import tune
from doctogres.tracking import STAGE_TAG, StageResult, open_run
from doctogres.upstream import find_artifact

SUMMARY_FILE: Final = "summary.txt"


def run_all(
    *, data: str, preset: Preset, seed: int, decisions: str = "", force: bool = False, strict: bool = False
) -> StageResult:
    """Runs or reuses every stage on the cohort at `data`; the test slides are predicted where there are any."""
    check_default_in_space(preset)
    with open_run("main") as parent:
        mlflow.set_tags({STAGE_TAG: "main", "mlflow.runName": f"main · {Path(data).name}"})
        mlflow.log_params({"main.data": data, "main.seed": seed, "main.backbone": preset.train.backbone})
        results = _stages(data, preset, seed, decisions, force, strict)
        by_stage = {result.stage: result for result in results}
        scores = by_stage["evaluate"].metrics
        metrics = {name: value for name, value in scores.items() if name.startswith(("macro_f1", "null/"))}
        mlflow.log_metrics(metrics)
        summary = summarise(by_stage)
        mlflow.set_tag("mlflow.note.content", _note(results, summary))
        (workspace() / SUMMARY_FILE).write_text(summary + "\n", encoding="utf-8")
        print(summary, flush=True)
        artifacts = {f"{result.stage}/{name}": uri for result in results for name, uri in result.artifacts.items()}
        artifacts["model"] = by_stage["register"].artifacts["model"]
        return StageResult("main", parent.info.run_id, artifacts, metrics)


def _stages(data: str, preset: Preset, seed: int, decisions: str, force: bool, strict: bool) -> list[StageResult]:
    again: dict[str, Any] = {"force": force}
    cleaned = clean(data=data, preset=preset, seed=seed, decisions=decisions, strict=strict, **again)
    cut = patch(cohort=cleaned.run_id, preset=preset, data=data, **again)
    tuned = tune(patches=cut.run_id, preset=preset, seed=seed, **again)
    trained = train(patches=cut.run_id, params=tuned.run_id, preset=preset, seed=seed, **again)
    scored = evaluate(
        model=trained.run_id, cohort=cleaned.run_id, split="holdout", preset=preset, seed=seed, data=data, **again
    )
    registered = register(evaluation=scored.run_id, **again)
    results = [cleaned, cut, tuned, trained, scored, registered]
    if (open_cohort(data, workspace=workspace()) / "test_data").is_dir():
        results.append(predict(data=data, model=registered.artifacts["model"], preset=preset, strict=strict, **again))
    else:
        print("predict: skipped, the cohort has no test_data folder", flush=True)
    return results


def summarise(results: dict[str, StageResult]) -> str:
    """The end of the run for a person: the version, its score beside the null model's, and what to type next."""
    version = json.loads(
        find_artifact(
            results["register"].run_id, stage="register", name="version", file="version.json"
        ).path.read_text()
    )
    metrics = results["evaluate"].metrics
    score = f"{metrics['macro_f1']:.3f} [{metrics['macro_f1/low']:.3f}, {metrics['macro_f1/high']:.3f}]"
    null = f"{metrics['null/majority/macro_f1']:.3f}"
    return "\n".join(
        [
            "",
            f"model       {version['name']} version {version['version']}, {version['alias'] or 'no alias'}: {version['reason']}",
            f"hold-out    macro-F1 {score}; null model (always the most frequent class) {null}",
            "",
            "next        make ui       browse the runs on http://127.0.0.1:5000",
            "            make serve    serve the champion on http://127.0.0.1:5001; then, in another terminal:",
            "            make request  asks it about one of the demo's test slides",
        ]
    )


def _note(results: list[StageResult], summary: str) -> str:
    lines = [f"- {result.stage}: run `{result.run_id}`" + (" (reused)" if result.reused else "") for result in results]
    return "\n".join([*lines, "", "```", summary.strip(), "```"])
