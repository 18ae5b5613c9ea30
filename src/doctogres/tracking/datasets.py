"""Tables as MLflow dataset inputs: what went into a run, with its digest, on the run's page."""

import json
import warnings
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import mlflow
import pandas as pd
from mlflow.data.dataset_source import DatasetSource
from mlflow.data.digest_utils import compute_pandas_digest
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Run

from doctogres.files import digest_of


class TableSource(DatasetSource):
    """Where a table came from: the address of an artifact (`runs:/...`), a folder or a file.

    MLflow's own sources know storage schemes only, and neither `runs:/` nor a folder of slides.
    """

    def __init__(self, uri: str):
        self.uri = uri

    @staticmethod
    def _get_source_type() -> str:
        return "doctogres"

    def load(self, **kwargs: Any) -> str:
        """The local path of the artifact."""
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
    """Logs the table as an input of the active run: its columns, size and digest, not its rows."""
    text = table.select_dtypes(["object", "str"]).columns
    plain = table.astype(dict.fromkeys(text, "string"))  # a column of missing text would be taken for numbers
    with warnings.catch_warnings():
        # The hint is about models that get such a table; ours get pictures.
        warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer column")
        # MLflow keeps one dataset per name and digest, with the source that it saw first.
        digest = digest_of(source, compute_pandas_digest(plain))
        dataset = from_pandas(plain, source=TableSource(source), name=name, targets=targets, digest=digest)
        mlflow.log_input(dataset, context=context)


def source_of(run: Run) -> str:
    """Where the run's input table came from, as `log_table` recorded it; empty if it recorded none."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    uri = str(json.loads(inputs[0].dataset.source)["uri"]) if inputs else ""
    return url2pathname(urlsplit(uri).path) if uri.startswith("file:") else uri
