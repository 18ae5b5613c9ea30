"""Logs tables and models as inputs of a run, so that its page shows what went into it, with a digest."""

import json
import re
import warnings
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
import pandas as pd
from mlflow.data.dataset_source import DatasetSource
from mlflow.data.digest_utils import compute_pandas_digest
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import LoggedModelInput, Run
from mlflow.exceptions import MlflowException

from doctogres.files import digest_of

TWICE: Final = re.compile("duplicate key|UNIQUE constraint")  # as PostgreSQL and SQLite call it


class TableSource(DatasetSource):
    """Where a table came from: an artifact URI (`runs:/...`), a folder or a file.

    MLflow's own sources only support storage schemes, not `runs:/` or a folder of slides.
    """

    def __init__(self, uri: str):
        self.uri = uri

    @staticmethod
    def _get_source_type() -> str:
        return "doctogres"

    def load(self, **kwargs: Any) -> str:
        """Downloads the artifact and returns its local path."""
        return str(mlflow.artifacts.download_artifacts(artifact_uri=self.uri, **kwargs))

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return False

    @classmethod
    def _resolve(cls, raw_source: Any) -> "TableSource":
        return cls(str(raw_source))

    def to_dict(self) -> dict[str, str]:
        return {"uri": self.uri}

    @classmethod
    def from_dict(cls, source_dict: dict[str, str]) -> "TableSource":
        return cls(source_dict["uri"])


def log_table(table: pd.DataFrame, *, name: str, source: str, context: str, targets: str | None = None) -> None:
    """Logs the table as an input of the active run: columns, size and digest, but not the rows."""
    text = table.select_dtypes(["object", "str"]).columns
    plain = table.astype(
        dict.fromkeys(text, "string")
    )  # a text column with only missing values would be inferred as numeric
    with warnings.catch_warnings():
        # The hint concerns models that take such a table as input; ours take images.
        warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer column")
        # MLflow keeps one dataset per name and digest, with the first source logged.
        digest = digest_of(source, compute_pandas_digest(plain))
        dataset = from_pandas(plain, source=TableSource(source), name=name, targets=targets, digest=digest)
        try:
            mlflow.log_input(dataset, context=context)
        except MlflowException as error:
            # MLflow looks for the dataset and then inserts it: two workers may both insert it. Now it is there.
            if TWICE.search(str(error)) is None:
                raise
            mlflow.log_input(dataset, context=context)


def log_model_input(address: str) -> str | None:
    """Logs a model of this store as an input of the active run; returns its id, None if the address is another one."""
    if not address.startswith("models:/m-"):
        return None
    model_id = address.removeprefix("models:/")
    mlflow.log_input(model=LoggedModelInput(model_id))
    return model_id


def source_of(run: Run) -> str:
    """Where the run's input table came from, as recorded by `log_table`; empty if there is no record."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    uri = str(json.loads(inputs[0].dataset.source)["uri"]) if inputs else ""
    return url2pathname(urlsplit(uri).path) if uri.startswith("file:") else uri
