"""Loads the classifier inside a logged or registered model."""

from pathlib import Path

from doctogres.errors import UpstreamError
from doctogres.model.classifier import SlideClassifier
from doctogres.tracking.places import fetch


def load_classifier(uri: str) -> SlideClassifier:
    """Downloads and loads the classifier inside a logged or registered model."""
    try:
        folder = fetch(uri) if ":/" in uri else Path(uri)
    except UpstreamError as error:
        raise UpstreamError(f"model={error}") from error
    inner = folder / "artifacts" / "classifier"
    if not inner.is_dir():
        raise UpstreamError(
            f"model={uri}: not a doctogres model, {inner.relative_to(folder)} is missing; give models:/doctogres@champion "
            "or a run id of `train`"
        )
    return SlideClassifier.load(inner)
