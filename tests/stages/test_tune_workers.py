"""The tune stage: several workers on one study in PostgreSQL, one of them killed; what its runs say afterwards."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import optuna
import psycopg
import pytest
import sqlalchemy
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from optuna.trial import FrozenTrial, TrialState

from doctogres.errors import DoctogresError, ParameterError
from doctogres.patches.manifest import Manifest
from doctogres.presets import load_preset
from doctogres.stages.clean import clean
from doctogres.stages.patch import patch
from doctogres.stages.tune import tune
from doctogres.tracking.runs import StageResult
from doctogres.tracking.store import experiment_id
from doctogres.tracking.upstream import find_artifact
from doctogres.tuning.trials import PREDICTED, RUN
from doctogres.tuning.workers import DEFAULT, FINISHED, OWNER
from entrypoints.reference import ROOT
from tests.postgres import postgres_server
from tests.servers import json_line
from tests.stores import connected

pytestmark = pytest.mark.slow
TRIALS = 6


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A PostgreSQL server; its URL without the database's name."""
    with postgres_server() as address:
        yield address


def start(folder: Path, **parameters: Any) -> subprocess.Popen[str]:
    """A worker: `python -m entrypoints.tune` with these parameters."""
    options = [text for name, value in parameters.items() for text in (f"--{name}", str(value))]
    return subprocess.Popen(
        [sys.executable, "-m", "entrypoints.tune", *options],
        cwd=folder, env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/src", "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=(folder / "errors.txt").open("a"),
    )  # fmt: skip


def result_of(worker: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    """The JSON line of a worker."""
    output = worker.communicate()[0]
    assert worker.returncode == 0, (folder / "errors.txt").read_text()
    return json_line(output)


def study_in(storage: str) -> optuna.Study:
    """The one study of the storage, without a connection that stays open."""
    database = optuna.storages.RDBStorage(
        storage, engine_kwargs={"poolclass": sqlalchemy.NullPool}, skip_table_creation=True
    )
    return optuna.load_study(study_name=None, storage=database)


def has_study(storage: str) -> bool:
    """Whether the workers have made the tables and the study in a PostgreSQL database."""
    with psycopg.connect(storage) as connection:
        try:
            return connection.execute("SELECT 1 FROM studies").fetchone() is not None
        except psycopg.errors.UndefinedTable:
            return False


def stop_in_a_trial(worker: subprocess.Popen[str], storage: str) -> FrozenTrial:
    """Halts the worker in the middle of a trial that is not the first; returns the trial."""
    while not has_study(storage):
        assert worker.poll() is None, "the worker ended before it could be killed"
        time.sleep(0.1)
    study = study_in(storage)

    def own() -> list[FrozenTrial]:
        running = study.get_trials(states=(TrialState.RUNNING,))
        owned = [trial for trial in running if trial.user_attrs.get(OWNER, {}).get("process") == worker.pid]
        return [trial for trial in owned if trial.intermediate_values and trial.number > 0]

    while True:
        assert worker.poll() is None, "the worker ended before it could be killed"
        if own():
            worker.send_signal(signal.SIGSTOP)
            if halted := own():  # it may have finished the trial in between
                return halted[0]
            worker.send_signal(signal.SIGCONT)
        time.sleep(0.05)


@pytest.fixture(scope="module")
def killed(
    postgres: str, small_cohort: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[optuna.Study, FrozenTrial, dict[str, Any], dict[str, Any]]]:
    """A study of two workers of which one was killed in a trial and started again.

    Yields the study, the interrupted trial, and the results of the surviving and of the restarted worker.
    """
    folder = tmp_path_factory.mktemp("workers")
    storage = postgres.format("study")
    with pytest.MonkeyPatch.context() as patcher, connected(postgres.format("tracking"), folder, patcher):
        cut = patch(
            cohort=clean(data=str(small_cohort), preset=load_preset("demo"), seed=1).run_id, preset=load_preset("demo")
        )
        parameters = {"patches": cut.run_id, "storage": storage, "trials": TRIALS, "trial_epochs": 6}
        workers = [start(folder, **parameters) for _ in range(2)]
        try:
            trial = stop_in_a_trial(workers[0], storage)
            workers[0].kill()
            workers[0].communicate()
            workers.append(start(folder, **parameters))
            survivor, restarted = (result_of(worker, folder) for worker in workers[1:])
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        yield study_in(storage), trial, survivor, restarted


def run_of(trial: FrozenTrial) -> Run:
    return MlflowClient().get_run(trial.user_attrs[RUN])


def test_no_trial_is_lost_and_none_is_run_twice(killed: Any) -> None:
    study, interrupted, *_ = killed
    trials = study.get_trials()
    assert [trial.number for trial in trials if trial.state == TrialState.FAIL] == [interrupted.number]
    assert len([trial for trial in trials if trial.state in FINISHED]) == TRIALS
    assert len(trials) == TRIALS + 1
    retries = [trial for trial in trials if trial.system_attrs.get("retry_history") == [interrupted.number]]
    assert [trial.params for trial in retries] == [interrupted.params]
    assert len({str(sorted(trial.params.items())) for trial in trials}) == TRIALS
    assert [trial.number for trial in trials if DEFAULT in trial.user_attrs] == [0]
    assert len({trial.user_attrs[OWNER]["process"] for trial in trials}) >= 2


def test_every_worker_ends_with_the_result_of_the_whole_study(killed: Any) -> None:
    study, _, *results = killed
    contents = [
        yaml.safe_load(Path(mlflow.artifacts.download_artifacts(result["artifacts"]["best_params"])).read_text())
        for result in results
    ]
    assert contents[0] == contents[1]
    assert contents[0]["slide_macro_f1"] == study.best_value
    for result in results:
        counts = {name: value for name, value in result["metrics"].items() if name.startswith("trials/")}
        assert counts.pop("trials/interrupted") == 1
        assert sum(counts.values()) == TRIALS
        pictures = {file.path for file in MlflowClient().list_artifacts(result["run_id"])}
        assert {"history.png", "timeline.png", "intermediate_values.png"} <= pictures


def test_nothing_of_the_killed_worker_stays_open_and_its_trial_names_its_retry(killed: Any) -> None:
    study, interrupted, *_ = killed
    (retry,) = [trial for trial in study.get_trials() if trial.system_attrs.get("retry_history")]
    dead, again = run_of(interrupted), run_of(retry)
    assert dead.info.status == "KILLED"
    assert f"trial-{retry.number:03d}" in dead.data.tags["mlflow.note.content"]
    assert f"trial-{interrupted.number:03d}" in again.data.tags["mlflow.note.content"]
    parent = MlflowClient().get_run(dead.data.tags["mlflow.parentRunId"])
    assert parent.info.status == "KILLED"
    assert "goes on" in parent.data.tags["mlflow.note.content"] or "repeats" in parent.data.tags["mlflow.note.content"]
    assert MlflowClient().search_runs([experiment_id()], "attributes.status = 'RUNNING'") == []


def test_every_trial_is_a_child_of_the_worker_that_ran_it(killed: Any) -> None:
    study, *_ = killed
    parents: dict[int, set[str]] = {}
    for trial in study.get_trials():
        run = run_of(trial)
        assert str(run.info.run_name).split()[-1] == f"trial-{trial.number:03d}"
        parents.setdefault(trial.user_attrs[OWNER]["process"], set()).add(run.data.tags["mlflow.parentRunId"])
    assert all(len(runs) == 1 for runs in parents.values())
    assert len(set.union(*parents.values())) == len(parents)


@pytest.fixture
def patches(store: Path, small_cohort: Path) -> str:
    preset = load_preset("demo")
    return patch(cohort=clean(data=str(small_cohort), preset=preset, seed=1).run_id, preset=preset).run_id


def note(result: StageResult) -> str:
    return str(MlflowClient().get_run(result.run_id).data.tags["mlflow.note.content"])


def children(run_id: str) -> dict[str, Run]:
    runs = MlflowClient().search_runs([experiment_id()], f"tags.mlflow.parentRunId = '{run_id}'")
    return {str(run.info.run_name).split()[-1]: run for run in runs}


def test_trials_over_several_folds_and_more_trials_of_the_same_study_later(patches: str, store: Path) -> None:
    size = {"trials": 2, "trial_epochs": 2, "trial_folds": 2}
    first = tune(patches=patches, preset=load_preset("demo", size), seed=1)
    more = tune(patches=patches, preset=load_preset("demo", size | {"trials": 3}), seed=1)
    study = study_in(f"sqlite:///{store}/workspace/optuna.db")
    table = Manifest.read(find_artifact(patches, stage="patch", name="patches").path).rows
    kept = table[table["outcome"] == "kept"]
    default = study.get_trials()[0]
    assert sorted(default.intermediate_values) == [0, 1, 2, 3]
    assert default.user_attrs[PREDICTED].keys() == set(kept.loc[kept["fold"].isin(["fold0", "fold1"]), "slide_id"])
    assert "fold1/slide_macro_f1" in run_of(default).data.metrics
    assert first.metrics["default/macro_f1"] == default.value
    assert first.metrics["macro_f1"] >= first.metrics["default/macro_f1"]
    assert children(first.run_id).keys() == {"trial-000", "trial-001"}
    assert children(more.run_id).keys() == {"trial-002"}
    assert "2 of them from earlier runs" in note(more)
    assert "preset's own settings" in note(more)


def test_a_study_that_cannot_be_is_refused(patches: str) -> None:
    with pytest.raises(ParameterError, match="trial_folds=9: the cohort has 4 folds"):
        tune(patches=patches, preset=load_preset("demo", {"trial_folds": 9}), seed=1)
    with pytest.raises(ParameterError, match="learning_rate=0.5: outside"):
        tune(patches=patches, preset=load_preset("demo", {"learning_rate": 0.5}), seed=1)


def test_an_error_in_a_trial_ends_the_stage_and_its_runs(patches: str) -> None:
    with pytest.raises(DoctogresError):
        tune(patches=patches, preset=load_preset("demo", {"backbone": "nothing_of_timm"}), seed=1)
    (stage,) = MlflowClient().search_runs([experiment_id()], "tags.`doctogres.stage` = 'tune'")
    (trial,) = children(stage.info.run_id).values()
    assert stage.info.status == trial.info.status == "FAILED"
    assert r"nothing\_of\_timm" in trial.data.tags["mlflow.note.content"]
