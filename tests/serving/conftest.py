"""A small untrained classifier, alone and as a registered model."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest

from doctogres.catalogue import DEFAULT_NAME
from doctogres.model.classifier import SlideClassifier
from doctogres.registry.gate import CHAMPION
from doctogres.serving.logged import log_classifier
from tests.model.untrained import classifier, unsure
from tests.servers import free_port, running
from tests.stores import connected, made_once, new_store, plain_environment

__all__ = ["address", "champion", "classifier", "unsure"]


@pytest.fixture(scope="session")
def champion(
    empty_store: Path, tmp_path_factory: pytest.TempPathFactory, classifier: SlideClassifier
) -> tuple[str, Path]:
    """The classifier as the champion of a store of its own: the store's address and the model's folder."""

    def make(folder: Path) -> None:
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patcher, connected(new_store(empty_store, folder), folder, patcher):
            with mlflow.start_run():
                logged = log_classifier(classifier, metadata={})
            version = mlflow.register_model(logged, DEFAULT_NAME).version
            mlflow.MlflowClient().set_registered_model_alias(DEFAULT_NAME, CHAMPION, version)
            mlflow.artifacts.download_artifacts(artifact_uri=logged, dst_path=str(folder / "copy"))

    folder = made_once(tmp_path_factory, "champion", make)
    (model,) = (folder / "copy").rglob("MLmodel")
    return f"sqlite:///{folder}/mlflow.db", model.parent


@contextmanager
def serving(store: str, folder: Path, *options: str, **environment: str) -> Iterator[str]:
    """The champion of a store behind `mlflow models serve`; its log is `log` in the folder."""
    found = f"http://127.0.0.1:{free_port()}"
    mlflow = str(Path(sys.executable).parent / "mlflow")
    command = [mlflow, "models", "serve", "--model-uri", "models:/doctogres@champion", "--env-manager", "local"]
    command += ["--port", found.rsplit(":", 1)[1], *options]
    kept = plain_environment()
    kept |= {"MLFLOW_TRACKING_URI": store, "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}", **environment}
    with running(command, f"{found}/ping", folder / "log", kept, seconds=300):
        yield found


@pytest.fixture(scope="session")
def address(champion: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The champion behind `mlflow models serve`."""
    with serving(champion[0], tmp_path_factory.mktemp("served")) as found:
        yield found
