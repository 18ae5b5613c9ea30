"""A stage as an MLflow run: names, tags, artifacts, and the reuse of finished runs."""

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import mlflow
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from doctogres import __version__
from doctogres.catalogue import STAGES
from doctogres.disk import naming_full_disk
from doctogres.errors import CohortError, UpstreamError
from doctogres.files import digest
from doctogres.launcher import RUN_VARIABLE
from doctogres.liveness import this_process
from doctogres.names import DIGITS, metric_name
from doctogres.pages import markdown
from doctogres.progress import place
from doctogres.tracking.code import DIFF_FILE, DIRTY_TAG, code_changes
from doctogres.tracking.fingerprints import fingerprint
from doctogres.tracking.places import fetch, store_folders
from doctogres.tracking.store import experiment_id
from doctogres.tracking.view import run_link

STAGE_TAG: Final = "doctogres.stage"
FINGERPRINT_TAG: Final = "doctogres.fingerprint"
RESULT_TAG: Final = "doctogres.result"  # names the artifact that holds a finished stage's result
RESULT_FILE: Final = "result.json"  # an artifact, because MLflow silently truncates tags at 8,000 characters
DATA_TAG: Final = "doctogres.data_digest"
SLIDES_TAG: Final = "doctogres.slides"  # the folder that the slides were read from
PART_TAG: Final = "doctogres.part_of"  # marks a run that another stage started for its own use; `latest` skips it
NOTE_TAG: Final = "mlflow.note.content"
NAME_TAG: Final = "mlflow.runName"
WORKER_TAG: Final = "doctogres.worker"  # the process behind a run; if it is dead, so is the run
INTERRUPTED_NOTE: Final = "Interrupted. The same command continues from what is kept."
SLIDES: Final = "slides"  # these two are columns of the table of runs
SECONDS: Final = "seconds"
SHOWN: Final = 12  # digits of a digest
SCORE: Final = re.compile(r"^[01]\.\d{3}$")  # with which a run's name begins; the terminal says what it is
DIGEST: Final = re.compile(r"[0-9a-f]{32,}")
PROBLEMS: Final = "problem_slides"  # the metric that `strict` checks


@dataclass(frozen=True)
class StageResult:
    """The result of a finished stage: its JSON line, and the words with which the command ends.

    Attributes:
        stage: its name.
        run_id: of its run.
        artifacts: name -> address.
        metrics: name -> value.
        reused: whether it is of an earlier run.
        title: the name of its run, which says what came out.
        summary: what `main` ends with; empty for a stage.
    """

    stage: str
    run_id: str
    artifacts: dict[str, str]
    metrics: dict[str, float]
    reused: bool = False
    title: str = ""
    summary: str = ""

    def to_json(self) -> str:
        content = {"stage": self.stage, "run_id": self.run_id, "artifacts": self.artifacts, "metrics": self.metrics}
        return json.dumps(content | {"reused": self.reused})

    def for_people(self) -> str:
        """What came out, and where the UI shows it: the last words of a command."""
        return self.summary or f"{self.title}: {run_link(self.run_id)}"


@dataclass
class StageRun:
    """The open MLflow run of a stage. Files in `folder` become its artifacts when the stage finishes."""

    stage: str
    run_id: str
    fingerprint: str
    folder: Path
    artifacts: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    title: str = ""
    outcome: str = ""
    attached: dict[str, str] = field(default_factory=dict)  # by the name that some file systems do not tell from it

    def name(self, fact: str, detail: str = "") -> None:
        """Sets the run's name in the UI, what came out first because the table cuts it: `0.743 evaluate holdout`."""
        self.title = " ".join(filter(None, (fact, self.stage, detail)))
        self.outcome = ", ".join(filter(None, (SCORE.sub(r"macro-F1 \g<0>", fact), detail)))
        mlflow.set_tag(NAME_TAG, self.title)

    def note(self, text: str, *, is_markdown: bool = False) -> None:
        """Sets the description on the run's page, which shows Markdown: what the stage did and found, in two sentences."""
        mlflow.set_tag(NOTE_TAG, text if is_markdown else markdown(text))

    def publish(self, name: str) -> Path:
        """The path for an artifact from the stage's row in the catalogue; the result lists it under `name`."""
        file = STAGES[self.stage].artifacts[name]
        self.artifacts[name] = f"runs:/{self.run_id}/{file}"
        return self.attach(file)

    def attach(self, file: str) -> Path:
        """The path for an artifact that is for people only, not for later stages.

        On macOS and Windows `A.png` would overwrite `a.png`: of names that differ in nothing else, the later one gets a digest.
        """
        path = self.folder / file
        if self.attached.setdefault(file.casefold(), file) != file:
            path = path.with_stem(f"{path.stem}-{digest(file, length=DIGITS)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def store_files(self) -> None:
        """Stores what is attached so far, now: a stage does it at its end, one that is about to fail does it before."""
        mlflow.log_artifacts(str(self.folder))

    def log_metrics(
        self, metrics: Mapping[str, float], *, step: int | None = None, model_id: str | None = None
    ) -> None:
        """Logs metrics of the run; those without a step also go into the stage's result.

        A class stands in a metric's name as its `class_key`. With `model_id` they stand on the page of that model, too, as
        measured on the dataset that this run has logged as its first input.
        """
        finite = {metric_name(name): float(value) for name, value in metrics.items() if value == value}
        dataset = None
        if model_id is not None:
            inputs = MlflowClient().get_run(self.run_id).inputs
            dataset = inputs.dataset_inputs[0].dataset if inputs and inputs.dataset_inputs else None
        mlflow.log_metrics(finite, step=step, model_id=model_id, dataset=dataset)
        if step is None:
            self.metrics.update(finite)


def finished_runs(stage: str, filters: str = "", *, limit: int = 1) -> list[Run]:
    """Finished runs of a stage in the experiment, newest first."""
    query = (
        f"attributes.status = 'FINISHED' and tags.`{STAGE_TAG}` = '{stage}' and tags.`{RESULT_TAG}` = '{RESULT_FILE}'"
        + (f" and {filters}" if filters else "")
    )
    newest = ["attributes.start_time DESC"]
    return list(MlflowClient().search_runs([experiment_id()], query, order_by=newest, max_results=limit))


def result_of(run: Run) -> StageResult:
    """The stage result recorded by a finished run.

    Raises:
        UpstreamError: its artifacts no longer exist, or cannot be reached.
    """
    try:
        content = json.loads(fetch(f"runs:/{run.info.run_id}/{RESULT_FILE}").read_text(encoding="utf-8"))
    except UpstreamError as error:
        raise UpstreamError(f"{run.info.run_id}: the run's result cannot be read: {error}") from error
    artifacts, metrics, title = content["artifacts"], content["metrics"], run.info.run_name
    return StageResult(run.data.tags[STAGE_TAG], run.info.run_id, artifacts, metrics, reused=True, title=title)


@contextmanager
def open_run(title: str, *, system_metrics: bool = False) -> Iterator[Run]:
    """A new run, nested in the open one if any; or the run that `mlflow run` opened, if it is in our experiment.

    It names the process behind it from its beginning, so that a later command ends it if this process is killed. An
    interrupted run ends as KILLED, a failed one as FAILED.
    """
    with _opened(title, system_metrics=system_metrics) as run:
        try:
            yield run
        except KeyboardInterrupt:
            mlflow.set_tag(NOTE_TAG, INTERRUPTED_NOTE)
            mlflow.end_run("KILLED")
            raise
    MlflowClient().delete_tag(run.info.run_id, WORKER_TAG)  # the longest of the tags; of no use after the end


def _opened(title: str, *, system_metrics: bool) -> Any:
    launched = os.environ.pop(RUN_VARIABLE, None)
    nested = mlflow.active_run() is not None
    options: dict[str, Any] = {"run_name": title, "nested": nested}
    if launched and not nested:
        run = MlflowClient().get_run(launched)
        if run.info.experiment_id == experiment_id():
            options = {"run_id": launched}
        else:
            MlflowClient().set_tag(launched, NOTE_TAG, "Launch only: the actual run is in the experiment `doctogres`.")
    worker = {WORKER_TAG: json.dumps(this_process())}
    return mlflow.start_run(**options, tags=worker, log_system_metrics=system_metrics)


def _finished(stage: str, digest: str) -> StageResult | None:
    """The result of the newest finished run with this fingerprint, if its artifacts still exist."""
    for run in finished_runs(stage, f"tags.`{FINGERPRINT_TAG}` = '{digest}'"):
        try:
            return result_of(run)
        except UpstreamError as error:
            print(f"{stage}: running again, because the finished run cannot be reused: {error}", flush=True)
    return None


def _reused(result: StageResult) -> StageResult:
    print(f"{result.stage}: reused the finished run {result.run_id} (same settings, inputs and code)", flush=True)
    launched = os.environ.pop(RUN_VARIABLE, None)
    if launched and mlflow.active_run() is None:
        client = MlflowClient()
        client.set_tag(launched, NAME_TAG, f"reused {result.stage}")
        link = f"[{markdown(result.title)}]({run_link(result.run_id, absolute=False)})"
        client.set_tag(launched, NOTE_TAG, f"Nothing to do: {link} has the same settings, inputs and code.")
    return result


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
    """Runs a stage as an MLflow run, or returns the result of a finished run with the same fingerprint.

    A run is marked as finished only after all artifacts are stored, so an interrupted stage is never reused.

    Args:
        stage: name of the stage.
        body: does the work; receives the open run.
        settings: resolved parameters, logged as `<stage>.<name>`.
        inputs: name -> content digest of everything the stage reads.
        data_digest: digest of the underlying cohort's content.
        rerun: run the stage again even if a finished run exists.
        strict: fail, after everything is stored, if the body reported problems.
        system_metrics: record CPU, memory and device load.
    """
    digest = fingerprint(f"doctogres.stages.{stage}", settings, inputs)
    if not rerun and (finished := _finished(stage, digest)):
        result = _reused(finished)
        _refuse_problems(result.metrics, stage, strict=strict)
        return result
    started = time.perf_counter()
    with open_run(stage, system_metrics=system_metrics) as active, tempfile.TemporaryDirectory() as folder:
        run = StageRun(stage, active.info.run_id, digest, Path(folder))
        mlflow.set_tags({STAGE_TAG: stage, FINGERPRINT_TAG: digest, **code_tags()})
        if data_digest:
            mlflow.set_tag(DATA_TAG, data_digest)
        mlflow.set_tags(_input_tags(inputs, data_digest))
        mlflow.log_params({f"{stage}.{name}": value for name, value in settings.items()})
        if (changes := code_changes()) and changes.kept:
            run.attach(DIFF_FILE).write_bytes(changes.diff)
        with naming_full_disk(Path(folder), *store_folders()):
            with place(f"{stage}:"):
                body(run)
            content = json.dumps({"artifacts": run.artifacts, "metrics": run.metrics})
            run.attach(RESULT_FILE).write_text(content, encoding="utf-8")
            run.store_files()
        duration = time.perf_counter() - started
        mlflow.log_metric(SECONDS, round(duration, 1))
        title = run.title or stage
        print(f"{stage}: {run.outcome or 'done'} ({duration:.1f} s)", flush=True)
        _refuse_problems(run.metrics, stage, strict=strict)
        mlflow.set_tag(RESULT_TAG, RESULT_FILE)
    return StageResult(stage, run.run_id, run.artifacts, run.metrics, title=title)


def code_tags() -> dict[str, str]:
    """The version of the code, and whether it has changed since its last commit, if it is in a working tree of git."""
    changes = code_changes()
    dirty = {} if changes is None else {DIRTY_TAG: str(bool(changes.diff)).lower()}
    return {"doctogres.version": __version__, **dirty}


def _input_tags(inputs: Mapping[str, str], data_digest: str) -> dict[str, str]:
    """The inputs as tags for people: digests shortened, and without the data's, which has its own tag."""
    return {
        f"doctogres.input.{name}": value[:SHOWN] if DIGEST.fullmatch(value) else value
        for name, value in inputs.items()
        if value != data_digest
    }


def _refuse_problems(metrics: Mapping[str, float], stage: str, *, strict: bool) -> None:
    problems = int(metrics.get(PROBLEMS, 0))
    if strict and problems:
        raise CohortError(
            f"{stage}: {problems} slides could not be used, and strict=true; the run's table lists the reasons"
        )
