"""A small untrained classifier, alone and as a registered model."""

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
import torch
from servers import free_port, running

from doctogres.ensemble import Ensemble
from doctogres.evaluation.calibration import Calibration
from doctogres.network import create_network
from doctogres.registry import CHAMPION
from doctogres.serving.classifier import Seen, SlideClassifier, make_classifier
from doctogres.serving.logged import log_classifier
from doctogres.settings import AnswerSettings, PatchSettings
from doctogres.tracking import REGISTERED_MODEL, connect


@pytest.fixture(scope="session")
def classifier() -> SlideClassifier:
    """Two untrained networks of three classes at 32 px; tiles of 24 px."""
    torch.manual_seed(0)
    members = [create_network("test_resnet", classes=3, size=32).eval() for _ in range(2)]
    return make_classifier(
        Ensemble(members),
        backbone="test_resnet",
        classes=("A", "B", "C(+)"),
        class_shares={"A": 0.5, "B": 0.3, "C(+)": 0.2},
        patch=PatchSettings(patch_size=32, min_area=30, margin=0.25, patching="regions"),
        answer=AnswerSettings(aggregation="mean", tta=False, target_precision=0.9),
        calibration=Calibration.none(0.9).model_copy(update={"temperature": 0.1}),  # so that slides differ
        region_side=24,
        seen=Seen(),
        evidence={"slides": 0},
    )


@pytest.fixture(scope="session")
def unsure(classifier: SlideClassifier) -> SlideClassifier:
    """The same one, never sure."""
    calibration = classifier.card.calibration.model_copy(update={"threshold": 1.1})
    return replace(classifier, card=classifier.card.model_copy(update={"calibration": calibration}))


@pytest.fixture(scope="session")
def champion(
    empty_store: Path, tmp_path_factory: pytest.TempPathFactory, classifier: SlideClassifier
) -> tuple[str, Path]:
    """The classifier as the champion of a store of its own: the store's address and the model's folder."""
    folder = tmp_path_factory.mktemp("champion")
    shutil.copy(empty_store, folder / "mlflow.db")
    store = f"sqlite:///{folder}/mlflow.db"
    with pytest.MonkeyPatch.context() as patcher:
        patcher.chdir(folder)
        patcher.setenv("MLFLOW_TRACKING_URI", store)
        patcher.setenv("MLFLOW_EXPERIMENT_ID", "0")
        for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
            patcher.delenv(name, raising=False)
        connect()
        with mlflow.start_run():
            logged = log_classifier(classifier, metadata={})
        version = mlflow.register_model(logged, REGISTERED_MODEL).version
        mlflow.MlflowClient().set_registered_model_alias(REGISTERED_MODEL, CHAMPION, version)
        path = Path(mlflow.artifacts.download_artifacts(artifact_uri=logged, dst_path=str(folder / "copy")))
    return store, path


@pytest.fixture(scope="session")
def address(champion: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The champion behind `mlflow models serve`."""
    found = f"http://127.0.0.1:{free_port()}"
    mlflow = str(Path(sys.executable).parent / "mlflow")
    command = [mlflow, "models", "serve", "--model-uri", "models:/doctogres@champion", "--env-manager", "local"]
    command += ["--port", found.rsplit(":", 1)[1]]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    kept |= {"MLFLOW_TRACKING_URI": champion[0], "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}"}
    with running(command, f"{found}/ping", tmp_path_factory.mktemp("served") / "log", kept, seconds=300):
        yield found
