"""Loads the classifier inside a logged or registered model, or only what it says of itself."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from doctogres.errors import UpstreamError
from doctogres.model.card import ClassifierCard, TrainingRecord
from doctogres.serving.signing import check_signature
from doctogres.tracking.places import fetch

if TYPE_CHECKING:  # torch, which the classifier's own description does not need
    from doctogres.model.classifier import SlideClassifier

INNER: Final = "artifacts/classifier"


def load_classifier(uri: str) -> "SlideClassifier":
    """Downloads and loads the classifier inside a logged or registered model, after a check of its signature."""
    from doctogres.model.classifier import SlideClassifier

    return SlideClassifier.load(checked_folder(uri))


def checked_folder(uri: str) -> Path:
    """As `classifier_folder`, after a check of the model's signature."""
    folder = classifier_folder(uri)
    check_signature(folder.parent.parent, uri)
    return folder


def classifier_folder(uri: str) -> Path:
    """The local folder with the classifier's files."""
    inner = _fetched(uri, uri) / INNER
    if not inner.is_dir():
        raise _other_model(uri)
    return inner


def classifier_json(uri: str) -> dict[str, Any]:
    """The classifier's description, its card, without the weights."""
    return _json(uri, "classifier.json")


def classifier_evidence(uri: str) -> dict[str, Any]:
    """What the training found out of fold, without the weights."""
    return _json(uri, "evidence.json")


def _json(uri: str, name: str) -> dict[str, Any]:
    root = uri
    if uri.startswith("models:/m-"):  # MLflow cannot download single files from this address
        try:
            root = str(MlflowClient().get_logged_model(uri.removeprefix("models:/")).artifact_location)
        except MlflowException as error:
            raise UpstreamError(
                f"model={uri}: there is no such model in this tracking store ({error.message})"
            ) from error
    file = _fetched(f"{root}/{INNER}/{name}", uri)
    if not file.is_file():
        raise _other_model(uri)
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def classifier_card(uri: str) -> ClassifierCard:
    """The classifier's card, without the weights."""
    return ClassifierCard.model_validate(classifier_json(uri))


def training_record(uri: str) -> TrainingRecord:
    """What a model was trained on, without loading it."""
    return TrainingRecord.model_validate(classifier_json(uri).get("seen", {}))


def _fetched(place: str, uri: str) -> Path:
    try:
        return fetch(place) if ":/" in place else Path(place)
    except UpstreamError as error:
        raise UpstreamError(f"model={uri}: {error}" if place != uri else f"model={error}") from error


def _other_model(uri: str) -> UpstreamError:
    return UpstreamError(
        f"model={uri}: not a doctogres model, {INNER} is missing; give models:/doctogres@champion or a run id of `train`"
    )
