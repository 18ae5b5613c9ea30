"""Ends runs that a killed process left open in the tracking store, with a note."""

import json
import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import mlflow
import psutil
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from doctogres.tracking.runs import NOTE_TAG
from doctogres.tracking.store import experiment_id

WORKER_TAG: Final = "doctogres.worker"  # the process behind a run; if it is dead, so is the run
STATE_TAG: Final = "doctogres.trial_state"
GRACE: Final = 60  # seconds by which a process's start time and our clock may differ


def this_process() -> dict[str, Any]:
    """Identifies this process for `is_gone`."""
    return {"host": platform.node(), "machine": _machine(), "process": os.getpid(), "time": time.time()}


def is_gone(owner: Mapping[str, Any]) -> bool:
    """Whether the process is known to be dead; False if this machine cannot tell."""
    if owner["machine"] != _machine():
        return False
    try:
        process = psutil.Process(owner["process"])
        # A process that started well after the record was written has merely reused the process id.
        return process.status() == psutil.STATUS_ZOMBIE or process.create_time() > owner["time"] + GRACE
    except psutil.NoSuchProcess:
        return True


def _machine() -> str:
    """The scope in which process ids are unique: this boot of the machine and, on it, this container."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return platform.node()


def take_over(tag: str, value: str, stage_run: str, note: str) -> None:
    """Records this process in its run, and ends runs with the same tag that killed processes on this machine left open.

    Args:
        tag: shared by all runs of the same piece of work.
        value: the value of the tag.
        stage_run: id of this process's run.
        note: set on the interrupted runs.
    """
    mlflow.set_tags({tag: value, WORKER_TAG: json.dumps(this_process())})
    query = f"attributes.status = 'RUNNING' and tags.`{tag}` = '{value}'"
    for run in MlflowClient().search_runs([experiment_id()], query):
        worker = run.data.tags.get(WORKER_TAG)
        if run.info.run_id != stage_run and worker and is_gone(json.loads(worker)):
            children = f"attributes.status = 'RUNNING' and tags.mlflow.parentRunId = '{run.info.run_id}'"
            for child in MlflowClient().search_runs([experiment_id()], children):
                end_run(child.info.run_id, note, stage_run)
            end_run(run.info.run_id, note, stage_run)


def end_run(run_id: str, note: str, stage_run: str) -> None:
    """Sets a note on the run of a dead process, and ends it and its parent runs that are still open."""
    client = MlflowClient()
    with suppress(MlflowException):  # a worker may use another tracking store, which does not have these runs
        client.set_tag(run_id, NOTE_TAG, note)
        if STATE_TAG in client.get_run(run_id).data.tags:
            client.set_tag(run_id, STATE_TAG, "INTERRUPTED")
        ancestor: str | None = run_id
        while ancestor and ancestor != stage_run:
            run = client.get_run(ancestor)
            if (
                run.info.status != "FINISHED" and NOTE_TAG not in run.data.tags
            ):  # `mlflow run` may have ended it already
                client.set_tag(ancestor, NOTE_TAG, note)
            if run.info.status == "RUNNING":
                client.set_terminated(ancestor, "KILLED")
            ancestor = run.data.tags.get("mlflow.parentRunId")
