"""How MLflow's UI shows the experiment: what it is, the page and the columns that a link opens."""

import json
import os
from typing import Final
from urllib.parse import quote

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_EXPERIMENT_PRIMARY_METRIC_NAME

from doctogres.addresses import without_password

LOCAL_UI: Final = "http://127.0.0.1:5000"  # of `make ui`
NOTE_TAG: Final = "mlflow.note.content"
# Without it a browser that has never seen MLflow lands on the page for traces of language models.
TRAINING: Final = "workflowType=machine_learning"
VIEW: Final = "doctogres"
VIEW_TAG: Final = (
    f"mlflow.sharedViewState.{VIEW}"  # what `Share` in the UI writes: a link with the view's name reads it
)
COLUMNS: Final = ("macro_f1", "ci/macro_f1_low", "ci/macro_f1_high", "slides", "seconds")
ABOUT: Final = (
    "Histology slides (picture, lesion mask, label) to a served classifier. One run per stage: `clean`, `patch`, `tune`, "
    "`train`, `evaluate`, `register`, `predict`; `main` is the parent of all of them. A run's name begins with its result, and "
    "its description says what was found. `macro_f1` of `evaluate` is on slides that no training has seen, with its 95 % "
    "interval in `ci/`. For research use; not a medical device."
)


def describe(experiment: Experiment) -> None:
    """Gives the experiment a description, unless a person wrote one, and the view that our links open."""
    columns = [f"metrics.`{name}`" for name in COLUMNS]
    view = json.dumps({"selectedColumns": columns, "columnOrder": columns})
    wanted = {VIEW_TAG: view, MLFLOW_EXPERIMENT_PRIMARY_METRIC_NAME: COLUMNS[0]}
    if not experiment.tags.get(NOTE_TAG):
        wanted[NOTE_TAG] = ABOUT
    for tag, value in wanted.items():
        if experiment.tags.get(tag) != value:
            _set(experiment.experiment_id, tag, value)


def _set(experiment: str, tag: str, value: str) -> None:
    try:
        MlflowClient().set_experiment_tag(experiment, tag, value)
    except MlflowException:  # commands that start at the same time on a new store set the same tags
        if MlflowClient().get_experiment(experiment).tags.get(tag) != value:
            raise


def experiment_link() -> str:
    """The address of the experiment's runs in the UI."""
    return f"{_ui()}/{_experiment()}/runs?{TRAINING}&viewStateShareKey={VIEW}"


def run_link(run_id: str, *, absolute: bool = True) -> str:
    """The address of a run in the UI; relative to the UI's root for a link in a note."""
    link = f"{_experiment()}/runs/{run_id}?{TRAINING}"
    return f"{_ui()}/{link}" if absolute else link


def compare_link(runs: list[str]) -> str:
    """The address of the comparison of these runs, relative to the UI's root for a link in a note."""
    chosen = {"runs": runs, "experiments": [os.environ["MLFLOW_EXPERIMENT_ID"]]}
    query = (f"{name}={quote(json.dumps(ids))}" for name, ids in chosen.items())
    return f"#/compare-runs?{'&'.join(query)}&{TRAINING}"


def _experiment() -> str:
    return f"#/experiments/{os.environ['MLFLOW_EXPERIMENT_ID']}"  # `connect` sets it


def _ui() -> str:
    """The tracking server, or where `make ui` shows a store that has none."""
    uri = mlflow.get_tracking_uri()
    return without_password(uri).rstrip("/") if uri.startswith(("http://", "https://")) else LOCAL_UI
