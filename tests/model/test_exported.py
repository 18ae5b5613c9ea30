"""Models as TorchScript and ONNX: they say of patches what the model says, or are refused."""

import builtins
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from doctogres.errors import DoctogresError, ParameterError
from doctogres.model.card import TrainingRecord
from doctogres.model.classifier import SlideClassifier, make_classifier
from doctogres.model.encoder import architecture_of
from doctogres.model.ensemble import Ensemble
from doctogres.model.exported import check_expressible, export_network, patch_probabilities, write_configuration
from doctogres.model.network import create_network
from doctogres.model.temperature import Calibration
from doctogres.settings import AnswerSettings, PatchSettings
from doctogres.slides.turns import TURNS

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit:FutureWarning"
)  # WSInfer reads TorchScript, deprecated or not
CLASSES = ("A", "B", "C(+)")


def model(*views: str, backbones: int = 1, members: int = 2, **answer: Any) -> SlideClassifier:
    """Untrained networks with other means and deviations each, whose answers differ."""
    torch.manual_seed(len(views) + backbones)
    sources = []
    for view in views:
        for number in range(backbones):
            networks = [create_network("test_resnet", classes=3, size=32).eval() for _ in range(members)]
            with torch.no_grad():
                for network in networks:
                    network.get_classifier().weight.mul_(20)  # type: ignore[operator]
            statistics = {"mean": (0.5, 0.4, 0.3 + number / 9), "std": (0.2, 0.3, 0.25)}
            architecture = architecture_of("test_resnet").model_copy(update=statistics)
            sources.append((architecture, view, Ensemble(networks)))
    return make_classifier(
        sources,
        recipe="finetune",
        classes=CLASSES,
        class_shares={"A": 1.0},
        patch=PatchSettings(patch_size=32, patching=",".join(dict.fromkeys(views)).rstrip("0123456789")),
        answer=AnswerSettings(**answer),
        calibration=Calibration.none(0.9),
        region_side=24,
        seen=TrainingRecord(),
        evidence={},
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wsinfer", "onnx"])
@pytest.mark.parametrize(
    "classifier",
    [
        model("regions", tta=False),
        model("window224", tta=True),
        model("regions", backbones=2, tta=True, fusion="features"),
    ],
    ids=["plain", "turned", "joined"],
)
def test_another_program_gets_the_models_probabilities(classifier: SlideClassifier, kind: str, tmp_path: Path) -> None:
    """Read as WSInfer and ONNX runtimes do: pixels in 0..1, then a softmax."""
    worst = export_network(classifier, kind, tmp_path)
    pixels = np.random.default_rng(9).integers(0, 256, (7, 32, 32, 3)).astype(np.uint8)
    unit = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    if kind == "wsinfer":
        outputs = torch.jit.load(str(tmp_path / "torchscript_model.pt"))(unit)
    else:
        session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
        outputs = torch.from_numpy(session.run(None, {"patches": unit.numpy()})[0])
    said = outputs.detach().softmax(1).numpy()
    expected = patch_probabilities(classifier, pixels)
    assert np.ptp(expected, axis=0).max() > 0.05  # the patches differ
    np.testing.assert_allclose(said, expected, atol=1e-4)
    assert worst < 1e-4


def test_the_probabilities_are_those_of_the_models_answers() -> None:
    classifier = model("regions", tta=True)
    rng = np.random.default_rng(2)
    mask = np.zeros((100, 100), np.bool_)
    mask[20:52, 30:62] = True  # 32 x 32: cut without resizing
    rgb = rng.integers(0, 256, (100, 100, 3)).astype(np.uint8)
    no_margin = classifier.card.patch.model_copy(update={"margin": 0.0})
    classifier = replace(classifier, card=classifier.card.model_copy(update={"patch": no_margin}))
    answer = classifier.classify(rgb, mask)
    np.testing.assert_allclose(
        answer.patch_probabilities, patch_probabilities(classifier, rgb[None, 20:52, 30:62]), atol=1e-6
    )


def test_the_configuration_says_what_to_cut(tmp_path: Path) -> None:
    for classifier, side in ((model("regions"), 36), (model("window224"), 224), (model("tiles128"), 128)):
        write_configuration(classifier.card, tmp_path, mpp=0.5)
        said = json.loads((tmp_path / "config.json").read_text())
        assert (said["patch_size_pixels"], said["spacing_um_px"], said["class_names"]) == (side, 0.5, list(CLASSES))
        assert said["num_classes"] == 3
        assert [step["name"] for step in said["transform"]] == ["Resize", "ToTensor"]
        assert said["transform"][0]["arguments"] == {"size": 32}


@pytest.mark.parametrize(
    ("views", "told"), [(("window224", "regions"), "2 views (window224, regions)"), (("whole",), "whole")]
)
def test_what_one_square_cannot_say_is_refused(views: tuple[str, ...], told: str) -> None:
    with pytest.raises(ParameterError) as caught:
        check_expressible(model(*views).card, "models:/m/1")
    assert told in str(caught.value)
    assert "models:/m/1" in str(caught.value)


def test_an_export_that_says_something_else_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("doctogres.model.exported.TURNS", TURNS[:3])
    with pytest.raises(DoctogresError, match=r"differ by up to .* \(test_resnet\) cannot be exported"):
        export_network(model("regions", tta=True), "wsinfer", tmp_path)


def test_onnx_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("onnx"):
            raise ImportError(name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ParameterError, match=r"onnxruntime is missing; pip install .*extra `export`"):
        export_network(model("regions"), "onnx", tmp_path)
