"""The stage that writes models for other programs."""

import json
from pathlib import Path

import mlflow
import pytest
import torch

from doctogres.errors import ParameterError
from doctogres.model.classifier import SlideClassifier
from doctogres.stages.export import export
from tests.model.untrained import classifier  # noqa: F401
from tests.stores import used_models

pytestmark = pytest.mark.slow


@pytest.fixture
def model(store: Path, classifier: SlideClassifier, monkeypatch: pytest.MonkeyPatch) -> str:  # noqa: F811
    """The address of a logged model, whose place `classifier` takes."""
    monkeypatch.setattr("doctogres.serving.loading.load_classifier", lambda address: classifier)
    monkeypatch.setattr("doctogres.stages.export.classifier_json", lambda address: classifier.card.model_dump())
    return f"models:/{mlflow.initialize_logged_model(name='made-here').model_id}"


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_it_leaves_a_folder_that_wsinfer_reads(model: str, tmp_path: Path) -> None:
    result = export(model=model, format="wsinfer", mpp="0.5", output=str(tmp_path / "out"))
    folder = tmp_path / "out" / "wsinfer"
    assert {file.name for file in folder.iterdir()} == {"torchscript_model.pt", "config.json", "README.md"}
    said = json.loads((folder / "config.json").read_text())
    assert (said["spacing_um_px"], said["num_classes"]) == (0.5, 3)
    assert torch.jit.load(str(folder / "torchscript_model.pt"))(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    assert result.metrics["largest_difference"] < 1e-4
    again = export(model=model, format="wsinfer", mpp="0.50", output="")
    assert again.run_id == result.run_id
    assert used_models(result.run_id)


def test_a_model_that_knows_its_resolution_needs_none(
    model: str,
    classifier: SlideClassifier,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("doctogres.stages.export.classifier_json", lambda address: {"mpp": 0.25})
    export(model=model, format="wsinfer", output=str(tmp_path))
    assert json.loads((tmp_path / "wsinfer" / "config.json").read_text())["spacing_um_px"] == 0.25


@pytest.mark.parametrize("mpp", ["", "0", "-1", "20x", "nan", "1000"])
def test_a_resolution_that_cannot_be_is_refused_before_a_run(model: str, mpp: str) -> None:
    with pytest.raises(ParameterError, match="microns per pixel"):
        export(model=model, format="wsinfer", mpp=mpp)
    assert mlflow.search_runs(search_all_experiments=True).empty
