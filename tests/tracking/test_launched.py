"""The run that `mlflow run` opens is ended with the command, or by the next one."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
from mlflow.tracking import MlflowClient

from doctogres.launcher import Launch
from doctogres.liveness import process, this_process
from doctogres.tracking import launched
from doctogres.tracking.interrupted import KILLED_NOTE, end_abandoned
from doctogres.tracking.launched import LAUNCHES, claim_launch, end_launch
from doctogres.tracking.runs import INTERRUPTED_NOTE, NOTE_TAG, WORKER_TAG


def opened(*processes: psutil.Process, **tags: str) -> Launch:
    """What `mlflow run` leaves for the process that it starts."""
    tags = {"mlflow.project.entryPoint": "main", "mlflow.source.type": "PROJECT"} | tags
    return Launch(str(MlflowClient().create_run(LAUNCHES, tags=tags).info.run_id), processes)


@pytest.fixture
def above() -> Iterator[psutil.Process]:
    """A process in the place of `mlflow run`."""
    command = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield psutil.Process(command.pid)
    command.kill()
    command.wait()


def status(launch: Launch) -> tuple[str, str | None]:
    run = mlflow.get_run(launch.run_id)
    return run.info.status, run.data.tags.get(NOTE_TAG)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(("before", "after"), [("RUNNING", "KILLED"), ("FAILED", "KILLED"), ("FINISHED", "FINISHED")])
def test_an_interruption_ends_mlflow_run_before_its_run(above: psutil.Process, before: str, after: str) -> None:
    launch = opened(above)
    MlflowClient().update_run(launch.run_id, before)
    end_launch(launch)
    assert not above.is_running()
    assert status(launch) == (after, INTERRUPTED_NOTE if after == "KILLED" else None)


@pytest.mark.usefixtures("store")
def test_an_interruption_is_not_hidden_by_a_store_that_does_not_know_the_run(above: psutil.Process) -> None:
    end_launch(Launch("0" * 32, (above,)))
    assert not above.is_running()


@pytest.mark.usefixtures("store")
def test_it_names_the_process_of_mlflow_run_and_is_ended_with_it(above: psutil.Process) -> None:
    launch = opened(above)
    claim_launch(launch)
    assert json.loads(mlflow.get_run(launch.run_id).data.tags[WORKER_TAG]) == process(above.pid)
    assert end_abandoned() == 0
    above.kill()
    above.wait()
    assert end_abandoned() == 1
    assert status(launch) == ("KILLED", KILLED_NOTE)


@pytest.mark.parametrize(
    ("change", "tags", "lost"),
    [
        ({}, {}, True),
        ({"others": True}, {}, False),
        ({"address": "http://elsewhere"}, {}, False),
        ({"own": True}, {}, False),
        ({}, {"mlflow.project.entryPoint": "someone's"}, False),
        ({}, {WORKER_TAG: json.dumps(this_process())}, False),
    ],
    ids=["lost", "another starts", "a server's", "our own", "another project's", "alive"],
)
def test_one_that_was_killed_before_it_named_a_process_is_ended(
    store: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], tags: dict[str, str], lost: bool
) -> None:
    launch = opened(**tags)
    monkeypatch.setenv("MLFLOW_RUN_ID", launch.run_id if "own" in change else opened().run_id)
    if "address" in change:
        monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: change["address"])
    monkeypatch.setattr(launched, "others_run", lambda: change.get("others", False))
    assert end_abandoned() == lost
    assert status(launch)[0] == ("KILLED" if lost else "RUNNING")
