"""The tracking store: MLflow pointed at it, and the experiment."""

import logging
import os
from typing import Final

import mlflow
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from doctogres.addresses import check_address, masked
from doctogres.errors import TrackingError
from doctogres.tracking.fresh import make_store, store_uri
from doctogres.tracking.places import check_place
from doctogres.tracking.view import describe

EXPERIMENT: Final = "doctogres"


def connect() -> None:
    """Points MLflow at the store and the experiment: the environment's, else `mlflow.db` and `doctogres`.

    `mlflow run` without `--experiment-name` opens its run in `Default`; our runs then go to `doctogres` all the same.

    Raises:
        ParameterError: an address holds a password.
        TrackingError: the store refuses us, cannot be reached, or keeps its artifacts where this machine has no place.
    """
    os.environ.setdefault(
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false"
    )  # a line per small file tells nobody anything
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    # Of every error of its database MLflow logs a traceback, and then raises it.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    mlflow.set_tracking_uri(store_uri())
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    given = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if not given or given == "0":
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
        given, name = None, name if name and name != "Default" else EXPERIMENT
    make_store()
    try:
        experiment = mlflow.set_experiment(None if given else name, experiment_id=given)
    except (MlflowException, SQLAlchemyError) as error:
        reason = masked(" ".join(str(error).split()))
        raise TrackingError(
            f"the tracking store cannot be used: {reason}; check MLFLOW_TRACKING_URI, and if the server asks for a login, "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        ) from error
    check_address("artifact_location", experiment.artifact_location)
    check_place(experiment)
    describe(experiment)
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment.experiment_id


def experiment_id() -> str:
    """The experiment that `connect` chose."""
    return os.environ["MLFLOW_EXPERIMENT_ID"]
