"""A stage as an MLflow run: names, tags, artifacts, and the reuse of finished runs."""

import json
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from doctogres import __version__
from doctogres.catalogue import STAGES
from doctogres.errors import CohortError, UpstreamError
from doctogres.files import digest_of
from doctogres.tracking.fingerprints import fingerprint
from doctogres.tracking.store import experiment_id

STAGE_TAG: Final = "doctogres.stage"
FINGERPRINT_TAG: Final = "doctogres.fingerprint"
RESULT_TAG: Final = "doctogres.result"  # names the artifact that holds a finished stage's result
RESULT_FILE: Final = "result.json"  # an artifact: MLflow cuts tags at 8,000 characters without a word
DATA_TAG: Final = "doctogres.data_digest"
SLIDES_TAG: Final = "doctogres.slides"  # the folder that the slides were read from
PART_TAG: Final = "doctogres.part_of"  # a run that another stage made for its own use; `latest` does not mean it
NOTE_TAG: Final = "mlflow.note.content"
PROBLEMS: Final = "problem_slides"  # the metric that `strict` looks at


@dataclass(frozen=True)
class StageResult:
    """What a finished stage left: the JSON line that every entry point ends with."""

    stage: str
    run_id: str
    artifacts: dict[str, str]
    metrics: dict[str, float]
    reused: bool = False

    def to_json(self) -> str:
        content = {"stage": self.stage, "run_id": self.run_id, "artifacts": self.artifacts, "metrics": self.metrics}
        return json.dumps(content | {"reused": self.reused})


@dataclass
class StageRun:
    """The open MLflow run of a stage. Files put into `folder` become its artifacts when the stage finishes."""

    stage: str
    run_id: str
    fingerprint: str
    folder: Path
    artifacts: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    title: str = ""

    def name(self, title: str) -> None:
        """The run's name in the UI, e.g. `clean · 277 slides`."""
        self.title = title
        mlflow.set_tag("mlflow.runName", title)

    def note(self, text: str) -> None:
        """Two sentences on the run's page: what the stage did and what it found."""
        mlflow.set_tag(NOTE_TAG, text)

    def publish(self, name: str) -> Path:
        """Where to write an artifact of the stage's row in the catalogue, which its result will list under `name`."""
        file = STAGES[self.stage].artifacts[name]
        self.artifacts[name] = f"runs:/{self.run_id}/{file}"
        return self.attach(file)

    def attach(self, file: str) -> Path:
        """Where to write an artifact that a person looks at and no later stage reads."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def log_metrics(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Metrics of the run; those without a step also go into the stage's result."""
        names = {name: metric_name(name) for name in metrics}
        taken = Counter(names.values())
        # Two classes may differ only in what MLflow does not allow: `f1/<2` and `f1/>2`.
        names = {
            name: short if taken[short] == 1 else f"{short}_{digest_of(name)[:4]}" for name, short in names.items()
        }
        finite = {names[name]: float(value) for name, value in metrics.items() if value == value}
        mlflow.log_metrics(finite, step=step)
        if step is None:
            self.metrics.update(finite)


def metric_name(name: str) -> str:
    """The name with what MLflow does not allow in a metric replaced: `f1/HER2(+)` -> `f1/HER2_pos_`."""
    return re.sub(r"[^/\w.\- :]", "_", name.replace("+", "pos"))


def finished_runs(stage: str, filters: str = "", *, limit: int = 1) -> list[Run]:
    """Finished runs of a stage in the experiment, the newest first."""
    query = (
        f"attributes.status = 'FINISHED' and tags.`{STAGE_TAG}` = '{stage}' and tags.`{RESULT_TAG}` = '{RESULT_FILE}'"
        + (f" and {filters}" if filters else "")
    )
    newest = ["attributes.start_time DESC"]
    return list(MlflowClient().search_runs([experiment_id()], query, order_by=newest, max_results=limit))


def result_of(run: Run) -> StageResult:
    """The stage result that a finished run recorded.

    Raises:
        UpstreamError: its artifacts are gone.
    """
    try:
        content = json.loads(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/{RESULT_FILE}"))
    except (MlflowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UpstreamError(f"{run.info.run_id}: its {RESULT_FILE} could not be fetched ({reason})") from error
    return StageResult(run.data.tags[STAGE_TAG], run.info.run_id, content["artifacts"], content["metrics"], reused=True)


def open_run(title: str, *, system_metrics: bool = False) -> Any:
    """A new run: nested in the open one, or the one that `mlflow run` opened for us when it is in our experiment."""
    launched = os.environ.pop("MLFLOW_RUN_ID", None)
    if launched and mlflow.active_run() is None:
        run = MlflowClient().get_run(launched)
        if run.info.experiment_id == experiment_id():
            return mlflow.start_run(run_id=launched, log_system_metrics=system_metrics)
        MlflowClient().set_tag(launched, NOTE_TAG, "Only the launch: the run itself is in the experiment `doctogres`.")
    return mlflow.start_run(run_name=title, nested=mlflow.active_run() is not None, log_system_metrics=system_metrics)


def _finished(stage: str, mark: str) -> StageResult | None:
    """The result of the newest finished run with this fingerprint, where its artifacts are still there."""
    for run in finished_runs(stage, f"tags.`{FINGERPRINT_TAG}` = '{mark}'"):
        try:
            return result_of(run)
        except UpstreamError as error:
            print(f"{stage}: is run again, because the finished run cannot be reused: {error}", flush=True)
    return None


def _reused(found: StageResult) -> StageResult:
    print(f"{found.stage}: reused the finished run {found.run_id} (same settings, inputs and code)", flush=True)
    launched = os.environ.pop("MLFLOW_RUN_ID", None)
    if launched and mlflow.active_run() is None:
        client = MlflowClient()
        client.set_tag(launched, "mlflow.runName", f"{found.stage} · reused")
        client.set_tag(launched, NOTE_TAG, f"Nothing to do: run {found.run_id} has the same fingerprint.")
    return found


def run_stage(
    stage: str,
    body: Callable[[StageRun], None],
    *,
    settings: Mapping[str, Any],
    inputs: Mapping[str, str],
    data_digest: str = "",
    rerun: bool = False,
    strict: bool = False,
    system_metrics: bool = False,
) -> StageResult:
    """Runs a stage in its MLflow run, or returns the finished run with the same fingerprint.

    The run is marked finished only after all artifacts are stored: a stage killed half-way is never reused.

    Args:
        stage: name of the stage.
        body: does the work; gets the open run.
        settings: resolved parameters, logged as `<stage>.<name>`.
        inputs: name -> content digest of everything the stage reads.
        data_digest: of the cohort's content that all of this comes from.
        rerun: repeat the stage although a finished run exists.
        strict: fail, after everything is stored, when the body reported problems.
        system_metrics: record CPU, memory and device load.
    """
    mark = fingerprint(f"doctogres.stages.{stage}", settings, inputs)
    if not rerun and (found := _finished(stage, mark)):
        result = _reused(found)
        _refuse_problems(result.metrics, stage, strict=strict)
        return result
    started = time.perf_counter()
    with open_run(stage, system_metrics=system_metrics) as active, tempfile.TemporaryDirectory() as folder:
        run = StageRun(stage, active.info.run_id, mark, Path(folder))
        mlflow.set_tags({STAGE_TAG: stage, FINGERPRINT_TAG: mark, "doctogres.version": __version__})
        if data_digest:
            mlflow.set_tag(DATA_TAG, data_digest)
        mlflow.set_tags({f"doctogres.input.{name}": value for name, value in inputs.items()})
        mlflow.log_params({f"{stage}.{name}": value for name, value in settings.items()})
        body(run)
        content = json.dumps({"artifacts": run.artifacts, "metrics": run.metrics})
        run.attach(RESULT_FILE).write_text(content, encoding="utf-8")
        mlflow.log_artifacts(folder)
        duration = time.perf_counter() - started
        mlflow.log_metric("duration_s", duration)
        print(f"{run.title or stage} ({duration:.1f} s)", flush=True)
        _refuse_problems(run.metrics, stage, strict=strict)
        mlflow.set_tag(RESULT_TAG, RESULT_FILE)
    return StageResult(stage, run.run_id, run.artifacts, run.metrics)


def _refuse_problems(metrics: Mapping[str, float], stage: str, *, strict: bool) -> None:
    problems = int(metrics.get(PROBLEMS, 0))
    if strict and problems:
        raise CohortError(
            f"{stage}: {problems} slides could not be used and strict=true; their reasons are in the run's table"
        )
