"""Networks that answer as one: means, turns, and the heads' features."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from doctogres.model.ensemble import Ensemble, outputs_of
from doctogres.model.network import create_network, normalisation, normalise

NEUTRAL: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


class Corner(nn.Module):
    """Answers by the red in the patch's upper left pixel: no two turns of a patch look the same to it."""

    def __init__(self, sign: float = 1.0):
        super().__init__()
        self.sign = nn.Parameter(torch.tensor(sign))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        red = self.sign * inputs[:, 0, 0, 0]
        return torch.stack([red, -red], 1)


def patches(count: int, size: int = 6) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)


def test_an_ensemble_answers_with_its_members_mean() -> None:
    pixels = patches(5)
    alone = [outputs_of(Ensemble([Corner(sign)]), pixels, **NEUTRAL).of_patches() for sign in (1.0, -3.0)]
    both = Ensemble([Corner(1.0), Corner(-3.0)])
    np.testing.assert_allclose(outputs_of(both, pixels, **NEUTRAL).of_patches(), np.mean(alone, axis=0))
    inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    np.testing.assert_allclose(both(inputs).softmax(1).detach().numpy(), np.mean(alone, axis=0), atol=1e-7)


def test_test_time_augmentation_is_blind_to_how_the_patch_lies() -> None:
    pixels = patches(3)
    ensemble = Ensemble([Corner()])
    straight = outputs_of(ensemble, pixels, tta=True, **NEUTRAL)
    lying = outputs_of(ensemble, np.rot90(pixels, axes=(1, 2))[:, :, ::-1], tta=True, **NEUTRAL)
    assert straight.every_view.shape == (8, 1, 3, 2)
    np.testing.assert_allclose(straight.of_patches(), lying.of_patches())
    assert not np.allclose(straight.of_patches(), outputs_of(ensemble, pixels, **NEUTRAL).of_patches())


def test_rows_pick_patches_and_batches_do_not_show() -> None:
    pixels, rows = patches(9), np.array([7, 2, 5])
    ensemble = Ensemble([Corner()])
    whole = outputs_of(ensemble, pixels, **NEUTRAL).of_patches()
    picked = outputs_of(ensemble, pixels, rows=rows, **NEUTRAL).of_patches()
    np.testing.assert_array_equal(picked, whole[rows])


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_vit", "mobilenetv3_small_050"])
def test_features_are_what_the_classifier_reads(backbone: str) -> None:
    torch.manual_seed(0)
    size: dict[str, Any] = {"img_size": 64} if "vit" in backbone else {}
    network: Any = timm.create_model(backbone, num_classes=3, **size)
    with_features = outputs_of(Ensemble([network]), patches(3, 64), features=True, **NEUTRAL)
    plain = outputs_of(Ensemble([network]), patches(3, 64), **NEUTRAL)
    np.testing.assert_allclose(with_features.of_patches(), plain.of_patches(), atol=1e-6)
    ((features,),) = with_features.features
    logits = network.eval().get_classifier()(features).double()
    np.testing.assert_allclose(logits.softmax(1).detach().numpy(), plain.of_patches(), atol=1e-6)
    assert plain.features == []


@pytest.mark.parametrize("backbone", ["test_convnext", "test_resnet", "test_efficientnet", "test_vit"])
def test_probabilities_are_float64_and_sum_to_one(backbone: str) -> None:
    network, pixels = create_network(backbone, classes=4, size=32), patches(5, 32)
    mean, std = normalisation(network)
    probabilities = outputs_of(Ensemble([network]), pixels, mean=mean, std=std).of_patches()
    assert probabilities.shape == (5, 4)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=0, atol=1e-12)
    by_hand = network.eval()(normalise(torch.from_numpy(pixels), mean, std)).double().softmax(1)
    np.testing.assert_allclose(probabilities, by_hand.detach().numpy(), rtol=0, atol=1e-6)


def test_the_batch_size_does_not_change_the_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble, pixels = Ensemble([create_network("test_resnet", classes=4, size=32)]), patches(5, 32)
    many = outputs_of(ensemble, pixels, **NEUTRAL).of_patches()
    monkeypatch.setattr("doctogres.model.ensemble.BATCH", 2)
    np.testing.assert_allclose(outputs_of(ensemble, pixels, **NEUTRAL).of_patches(), many, rtol=0, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_prediction_leaves_the_network_as_it_was(training: bool) -> None:
    ensemble = Ensemble([create_network("test_resnet", classes=4, size=32, dropout=0.5)]).train(training)
    before = {name: value.clone() for name, value in ensemble.state_dict().items()}
    first, second = (outputs_of(ensemble, patches(5, 32), **NEUTRAL).of_patches() for _ in range(2))
    assert np.array_equal(first, second)  # no dropout
    assert all(module.training is training for module in ensemble.modules())
    assert all(torch.equal(value, before[name]) for name, value in ensemble.state_dict().items())
    assert all(parameter.grad is None for parameter in ensemble.parameters())


def test_the_mode_is_left_as_it_was() -> None:
    ensemble = Ensemble([timm.create_model("test_resnet", num_classes=2)]).train()
    before = {name: value.clone() for name, value in ensemble.state_dict().items()}
    outputs_of(ensemble, patches(2, 32), features=True, **NEUTRAL)
    assert ensemble.training
    assert all(torch.equal(before[name], value) for name, value in ensemble.state_dict().items())
