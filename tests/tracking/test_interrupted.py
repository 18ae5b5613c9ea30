"""Runs whose process was killed are ended by the next command; others are left alone."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from doctogres.liveness import this_process
from doctogres.tracking.interrupted import KILLED_NOTE, end_abandoned
from doctogres.tracking.runs import NOTE_TAG, WORKER_TAG, StageRun, open_run, run_stage

DEAD = {"process": 2**22 + 1}  # above the highest process id


def opened(stage: str, worker: dict[str, Any] | None, parent: str = "") -> str:
    """The id of a run that nobody ended."""
    tags = {"mlflow.parentRunId": parent} if parent else {}
    tags |= {WORKER_TAG: json.dumps(worker)} if worker else {}
    experiment = mlflow.get_experiment_by_name("doctogres")
    assert experiment is not None
    run = MlflowClient().create_run(experiment.experiment_id, run_name=stage, tags=tags)
    return str(run.info.run_id)


def status(run_id: str) -> tuple[str, str | None]:
    run = mlflow.get_run(run_id)
    return run.info.status, run.data.tags.get(NOTE_TAG)


def test_runs_of_dead_processes_are_ended_with_their_children(store: Path) -> None:
    dead = this_process() | DEAD
    parent = opened("main", dead)
    stage = opened("clean", dead, parent)
    trial = opened("trial-000", None, stage)
    restarted = opened("train", this_process() | {"boot": "an earlier one"})
    alive, elsewhere, unknown = (
        opened("patch", worker) for worker in (this_process(), dead | {"boot": "b", "machine": "another"}, None)
    )
    assert end_abandoned() == 3
    assert [status(run) for run in (parent, stage, trial, restarted)] == [("KILLED", KILLED_NOTE)] * 4
    assert [status(run) for run in (alive, elsewhere, unknown)] == [("RUNNING", None)] * 3
    assert end_abandoned() == 0


def test_an_interrupted_stage_and_its_parents_are_killed_and_a_failed_one_is_failed(store: Path) -> None:
    runs: list[str] = []

    def interrupted(run: StageRun) -> None:
        runs.append(run.run_id)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), open_run("main") as parent:
        run_stage("clean", interrupted, settings={}, inputs={})
    assert [status(run)[0] for run in (*runs, parent.info.run_id)] == ["KILLED", "KILLED"]
    assert "continues from what is kept" in str(status(runs[0])[1])
    assert mlflow.active_run() is None

    with pytest.raises(ValueError, match="wrong"), open_run("main") as failed:
        raise ValueError("wrong")
    assert status(failed.info.run_id)[0] == "FAILED"


def test_a_run_names_the_process_behind_it_until_it_is_finished(store: Path) -> None:
    with open_run("clean") as run:
        assert json.loads(mlflow.get_run(run.info.run_id).data.tags[WORKER_TAG]).keys() == this_process().keys()
    assert WORKER_TAG not in mlflow.get_run(run.info.run_id).data.tags
