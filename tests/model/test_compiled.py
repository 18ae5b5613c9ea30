"""OpenVINO in PyTorch's place: the same answers, and PyTorch where it cannot have that place."""

import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from doctogres.model.attention import GatedAttention
from doctogres.model.compiled import CompiledNetwork
from doctogres.model.ensemble import BATCH, WITHOUT_OPENVINO, Ensemble, outputs_of
from doctogres.model.fusion import softmax
from doctogres.model.graphs import BATCH as COMPILED_BATCH
from doctogres.model.network import create_network

STATISTICS: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}


def pixels(count: int, size: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, size, size, 3), np.uint8)


def made_ensemble(backbone: str, size: int, *, members: int = 1, attention: bool = False) -> Ensemble:
    torch.manual_seed(0)
    networks: list[Any] = [create_network(backbone, classes=3, size=size) for _ in range(members)]
    heads = [GatedAttention(network.num_features, 3) for network in networks] if attention else []
    return Ensemble(networks, heads).eval()


@pytest.mark.parametrize(
    ("backbone", "size", "attention"),
    [
        ("test_resnet", 32, False),
        ("test_resnet", 32, True),
        pytest.param("test_convnext", 64, True, marks=pytest.mark.slow),
        pytest.param("mobilenetv3_small_050", 64, False, marks=pytest.mark.slow),
        pytest.param("test_vit", 64, True, marks=pytest.mark.slow),
    ],
)
def test_the_answers_are_those_of_pytorch_for_any_number_of_patches(backbone: str, size: int, attention: bool) -> None:
    ensemble = made_ensemble(backbone, size, members=2, attention=attention)
    features = len(ensemble.attention) > 0
    asked = [(pixels(count, size), tta) for count, tta in ((1, False), (COMPILED_BATCH + 1, False), (3, True))]
    expected = [outputs_of(ensemble, patches, tta=tta, features=features, **STATISTICS) for patches, tta in asked]
    ensemble.compile_members(size=size)
    assert ensemble.batch_size == COMPILED_BATCH
    for (patches, tta), one in zip(asked, expected, strict=True):
        found = outputs_of(ensemble, patches, tta=tta, features=features, **STATISTICS)
        np.testing.assert_allclose(softmax(found.every_view), softmax(one.every_view), atol=1e-5)
        assert (
            len(patches) == 1 or np.ptp(softmax(one.every_view), axis=2).max() > 1e-3
        )  # there is something to compare
        assert softmax(found.every_view).dtype == softmax(one.every_view).dtype
        for view, other in zip(found.features, one.features, strict=True):
            for mine, theirs in zip(view, other, strict=True):
                torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_threads_that_ask_at_once_get_their_own_answers() -> None:
    ensemble = made_ensemble("test_resnet", 32)
    ensemble.compile_members(size=32)
    asked = [pixels(1 + number % 7, 32) + np.uint8(number) for number in range(40)]
    alone = [outputs_of(ensemble, patches, **STATISTICS).every_view for patches in asked]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda patches: outputs_of(ensemble, patches, **STATISTICS).every_view, asked))
    assert np.ptp([one[0, 0, 0, 0] for one in alone]) > 1e-3
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_an_answer_is_not_overwritten_by_the_next() -> None:
    class Sum(nn.Module):
        def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor]:
            return (patches.sum((2, 3)),)

    compiled = CompiledNetwork(Sum(), torch.zeros(1, 3, 4, 4))
    (first,) = compiled(torch.ones(2, 3, 4, 4))
    compiled(torch.zeros(2, 3, 4, 4))
    assert first.tolist() == [[16.0] * 3] * 2


class Classifier(nn.Module):
    """Three classes from a patch's colours."""

    def __init__(self, forward: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.layer, self.operation = nn.Linear(3, 3), forward

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(self.operation(patches.mean((2, 3))))
        return logits


def counted(colours: torch.Tensor) -> torch.Tensor:
    """Tracing sees a constant here, of as many patches as the example has."""
    return torch.from_numpy(np.sinc(colours.detach().numpy()))


def scaled(colours: torch.Tensor) -> torch.Tensor:
    """Tracing sees the example's number here."""
    return colours * float(colours.sum())


@pytest.mark.parametrize(
    ("operation", "reason"), [(counted, "returned 2 patches instead of 3"), (scaled, "are off by up to")]
)
def test_a_network_that_openvino_cannot_run_stays_with_pytorch_and_the_log_says_so(
    operation: Callable[[torch.Tensor], torch.Tensor], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    ensemble = Ensemble([Classifier(operation)]).eval()
    expected = outputs_of(ensemble, pixels(3, 8), **STATISTICS).every_view
    with caplog.at_level(logging.WARNING):
        ensemble.compile_members(size=8)
    (line,) = caplog.text.splitlines()
    assert reason in line
    assert WITHOUT_OPENVINO in line
    assert ensemble.batch_size == BATCH
    np.testing.assert_array_equal(outputs_of(ensemble, pixels(3, 8), **STATISTICS).every_view, expected)


def test_features_that_are_wrong_are_noticed_where_the_logits_are_right(caplog: pytest.LogCaptureFixture) -> None:
    class Doubled(Classifier):
        """Its features depend on the example's number, its logits do not."""

        def forward_features(self, patches: torch.Tensor) -> torch.Tensor:
            return patches.mean((2, 3))

        def forward_head(self, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
            return features * float(features.sum()) if pre_logits else self.layer(features)

    ensemble = Ensemble([Doubled(torch.nn.Identity())], [GatedAttention(3, 3)]).eval()
    ensemble.compile_members(size=8)
    assert "outputs are off by" in caplog.text
    assert ensemble.batch_size == BATCH


def test_training_or_moving_the_networks_brings_pytorch_back() -> None:
    ensemble = made_ensemble("test_resnet", 32)
    for change in (lambda: ensemble.train().eval(), lambda: ensemble.to(torch.float64).float()):
        ensemble.compile_members(size=32)
        assert ensemble.batch_size == COMPILED_BATCH
        change()
        assert ensemble.batch_size == BATCH


def test_without_openvino_the_log_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    ensemble = made_ensemble("test_resnet", 32)
    ensemble.compile_members(size=32)
    assert WITHOUT_OPENVINO in caplog.text
    assert "requirements.txt" in caplog.text
    assert outputs_of(ensemble, pixels(2, 32), **STATISTICS).of_patches().shape == (2, 3)


def test_nothing_is_told_to_openvinos_maker() -> None:
    made_ensemble("test_resnet", 32).compile_members(size=32)
    assert sys.modules["openvino"] is not None
    assert sys.modules["openvino_telemetry"] is None
