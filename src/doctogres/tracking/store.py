"""The tracking store: MLflow pointed at it, and the experiment."""

import logging
import os
import re
from typing import Final

import mlflow
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from doctogres.errors import DoctogresError

EXPERIMENT: Final = "doctogres"
DEFAULT_STORE: Final = "sqlite:///mlflow.db"


class TrackingError(DoctogresError):
    """MLflow's store refuses us or cannot be reached."""

    code = "tracking"


def connect() -> None:
    """Points MLflow at the store and the experiment: the environment's, else `mlflow.db` and `doctogres`.

    `mlflow run` without `--experiment-name` opens its run in `Default`; our runs then go to `doctogres` all the same.

    Raises:
        TrackingError: the store refuses us or cannot be reached.
    """
    os.environ.setdefault(
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false"
    )  # a line per small file tells nobody anything
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE)
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    given = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if not given or given == "0":
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
        given, name = None, name if name and name != "Default" else EXPERIMENT
    try:
        experiment = mlflow.set_experiment(None if given else name, experiment_id=given)
    except (MlflowException, SQLAlchemyError) as error:
        reason = re.sub(r"//\S*@", "//", " ".join(str(error).split()))  # without a login in the address
        raise TrackingError(
            f"the tracking store cannot be used: {reason}; of a server check MLFLOW_TRACKING_URI, and "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD where it asks for a login"
        ) from error
    os.environ["MLFLOW_EXPERIMENT_ID"] = experiment.experiment_id


def experiment_id() -> str:
    """The experiment that `connect` chose."""
    return os.environ["MLFLOW_EXPERIMENT_ID"]
