"""Ends runs that a killed process left open in the tracking store, with a note."""

import json
from contextlib import suppress
from typing import Final

import mlflow
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from doctogres.liveness import is_gone
from doctogres.tracking.launched import LAUNCHES, is_lost_launch
from doctogres.tracking.runs import INTERRUPTED_NOTE, NOTE_TAG, WORKER_TAG
from doctogres.tracking.store import experiment_id

STATE_TAG: Final = "doctogres.trial_state"
INTERRUPTED: Final = "INTERRUPTED"  # the state of a trial whose process was interrupted or killed
KILLED_NOTE: Final = "Interrupted: its process was killed. The same command continues from what is kept."


def take_over(tag: str, value: str, stage_run: str, note: str) -> None:
    """Tags this process's run, and ends runs with the same tag that killed processes on this machine left open.

    Args:
        tag: shared by all runs of the same piece of work.
        value: the value of the tag.
        stage_run: id of this process's run.
        note: set on the interrupted runs.
    """
    mlflow.set_tag(tag, value)
    for run in MlflowClient().search_runs([experiment_id()], f"tags.`{tag}` = '{value}'"):
        was_ended = run.info.status == "KILLED" and run.data.tags.get(NOTE_TAG) in (KILLED_NOTE, INTERRUPTED_NOTE)
        if run.info.run_id != stage_run and (was_ended or _is_abandoned(run)):
            _end_with_children(run, note, stage_run)


def end_abandoned() -> int:
    """Ends the runs, of any stage and of `mlflow run`, that killed processes of this machine left open; returns how many."""
    running = "attributes.status = 'RUNNING'"
    opened = _search(running)
    if experiment_id() != LAUNCHES:
        with suppress(MlflowException):  # a server may give us no access to it
            opened += _search(running, LAUNCHES)
    abandoned = [run for run in opened if _is_abandoned(run) or is_lost_launch(run)]
    for run in abandoned:
        _end_with_children(run, KILLED_NOTE, "")
    return len(abandoned)


def _search(query: str, experiment: str = "") -> list[Run]:
    return list(MlflowClient().search_runs([experiment or experiment_id()], query))


def _is_abandoned(run: Run) -> bool:
    worker = run.data.tags.get(WORKER_TAG)
    return run.info.status == "RUNNING" and worker is not None and is_gone(json.loads(worker))


def _end_with_children(run: Run, note: str, stage_run: str) -> None:
    for child in _search(f"attributes.status = 'RUNNING' and tags.mlflow.parentRunId = '{run.info.run_id}'"):
        end_run(child.info.run_id, note, stage_run)
    end_run(run.info.run_id, note, stage_run)


def end_run(run_id: str, note: str, stage_run: str) -> None:
    """Sets a note on the run of a dead process, and ends it and its parent runs that are still open."""
    client = MlflowClient()
    with suppress(MlflowException):  # a worker may use another tracking store, which does not have these runs
        client.set_tag(run_id, NOTE_TAG, note)
        if STATE_TAG in client.get_run(run_id).data.tags:
            client.set_tag(run_id, STATE_TAG, INTERRUPTED)
        ancestor: str | None = run_id
        while ancestor and ancestor != stage_run:
            run = client.get_run(ancestor)
            if (
                run.info.status != "FINISHED" and run.data.tags.get(NOTE_TAG, KILLED_NOTE) == KILLED_NOTE
            ):  # `mlflow run` may have ended it already
                client.set_tag(ancestor, NOTE_TAG, note)
            if run.info.status == "RUNNING":
                client.set_terminated(ancestor, "KILLED")
            ancestor = run.data.tags.get("mlflow.parentRunId")
