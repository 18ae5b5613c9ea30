"""Loads the classifier inside a logged or registered model."""

from pathlib import Path

import mlflow
from mlflow.exceptions import MlflowException

from doctogres.errors import UpstreamError
from doctogres.model.classifier import SlideClassifier


def load_classifier(uri: str) -> SlideClassifier:
    """Downloads and loads the classifier inside a logged or registered model."""
    try:
        folder = (
            Path(mlflow.artifacts.download_artifacts(artifact_uri=uri)) if "/" in uri and ":/" in uri else Path(uri)
        )
    except (MlflowException, OSError) as error:
        raise UpstreamError(f"model={uri}: could not be fetched ({str(error).splitlines()[0]})") from error
    inner = folder / "artifacts" / "classifier"
    if not inner.is_dir():
        raise UpstreamError(
            f"model={uri}: not a doctogres model, {inner.relative_to(folder)} is missing; give models:/doctogres@champion "
            "or a run id of `train`"
        )
    return SlideClassifier.load(inner)
