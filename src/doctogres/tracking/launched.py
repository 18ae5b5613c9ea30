"""The run that `mlflow run` opens before it starts a command: it names its process, and an interruption ends it as well."""

import json
import os
from contextlib import suppress
from typing import Final

import mlflow
import psutil
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_PROJECT_ENTRY_POINT

from doctogres.catalogue import STAGES
from doctogres.launcher import RUN_VARIABLE, Launch, others_run
from doctogres.liveness import process, this_process
from doctogres.tracking.runs import INTERRUPTED_NOTE, NOTE_TAG, WORKER_TAG

LAUNCHES: Final = "0"  # the experiment of launches without a name
PATIENCE: Final = 10  # seconds that `mlflow run` gets to end


def claim_launch(launch: Launch) -> None:
    """Names the process of `mlflow run` in its run, so that a later command ends the run if that process is killed."""
    worker = process(launch.command.pid) if launch.command else this_process()
    MlflowClient().set_tag(launch.run_id, WORKER_TAG, json.dumps(worker))


def end_launch(launch: Launch) -> None:
    """Ends an interrupted `mlflow run`, which only waits for this process, and its run as KILLED.

    If it went on it would overwrite whatever status we give the run with FAILED.
    """
    if launch.command:
        with suppress(psutil.Error):
            launch.command.terminate()
            launch.command.wait(PATIENCE)
    client = MlflowClient()
    with suppress(MlflowException):  # the store cannot be reached: a later command ends the run
        if client.get_run(launch.run_id).info.status != "FINISHED":
            client.set_tag(launch.run_id, NOTE_TAG, INTERRUPTED_NOTE)
            client.set_terminated(launch.run_id, "KILLED")


def is_lost_launch(run: Run) -> bool:
    """Whether an open run is of an `mlflow run` that was killed before its command had named the process.

    Only a store in a file is known to be used by this machine alone, and only if no other `mlflow run` is just starting.
    """
    tags = run.data.tags
    return (
        tags.get(MLFLOW_PROJECT_ENTRY_POINT) in STAGES
        and WORKER_TAG not in tags
        and run.info.run_id != os.environ.get(RUN_VARIABLE)
        and mlflow.get_tracking_uri().startswith("sqlite:")
        and not others_run()
    )
