from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from doctogres.model.ensemble import Ensemble
from doctogres.model.network import normalise
from doctogres.report.gradcam import NoHeatMapError, ensemble_gradcam, gradcam

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)


class ColourFinder(nn.Module):
    """Class 0 is the amount of red, class 1 of green, class 2 of blue; its last map has a place for 8 x 8 pixels."""

    feature_info = ({"module": "map", "num_chs": 3, "reduction": 8},)

    def __init__(self) -> None:
        super().__init__()
        colours = nn.Conv2d(3, 3, 1, bias=False)
        colours.weight = nn.Parameter(torch.eye(3)[:, :, None, None])
        self.map = nn.Sequential(colours, nn.ReLU(), nn.AvgPool2d(8))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        amounts: torch.Tensor = self.map(inputs).mean((2, 3))
        return amounts


def painted(corners: list[tuple[int, int, int] | None], size: int = 32) -> np.ndarray:
    """A black patch with a coloured square in each corner that has a colour: top left, top right, bottom left, right."""
    pixels = np.zeros((size, size, 3), np.uint8)
    half = size // 2
    for index, colour in enumerate(corners):
        if colour:
            top, left = index // 2 * half, index % 2 * half
            pixels[top : top + half // 2, left : left + half // 2] = colour
    return pixels


def hottest_corner(heat: np.ndarray) -> list[int]:
    rows, columns = heat.shape[1] // 2, heat.shape[2] // 2
    sums = heat.reshape(-1, 2, rows, 2, columns).sum((2, 4)).reshape(-1, 4)
    return [int(corner) for corner in sums.argmax(1)]


def test_the_heat_lies_where_the_class_does() -> None:
    pixels = np.stack([painted([RED, None, GREEN, BLUE])] * 3 + [painted([None, BLUE, None, RED])])
    heat = gradcam(ColourFinder(), pixels, np.array([0, 1, 2, 0]), mean=MEAN, std=STD)
    assert heat.shape == (4, 4, 4)
    assert heat.dtype == np.float32
    assert hottest_corner(heat) == [0, 2, 3, 3]
    assert (heat[0] > 0).sum() == 1


def test_all_patches_share_one_scale() -> None:
    weak, strong = painted([(170, 0, 0), None, None, None]), painted([RED, None, None, None])
    heat = gradcam(ColourFinder(), np.stack([weak, strong]), np.array([0, 0]), mean=MEAN, std=STD)
    assert heat[1].max() == 1
    assert 0.2 < heat[0].max() < 0.5


def test_a_patch_without_evidence_stays_cold() -> None:
    pixels = np.stack([painted([None] * 4)] * 2)
    heat = gradcam(ColourFinder(), pixels, np.array([0, 1]), mean=MEAN, std=STD)
    np.testing.assert_array_equal(heat, np.zeros((2, 4, 4)))


def test_of_pooled_features_and_a_linear_layer_it_is_the_class_activation_map() -> None:
    """Selvaraju et al. show it: there Grad-CAM is CAM (Zhou et al. 2016), the features weighted by the classifier's row."""
    torch.manual_seed(0)
    network: Any = timm.create_model("test_resnet", num_classes=3).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 128, 128, 3)).astype(np.uint8)
    targets = np.array([2, 0])
    with torch.no_grad():
        features = network.forward_features(normalise(torch.from_numpy(pixels), MEAN, STD))
        expected = F.relu(torch.einsum("nchw,nc->nhw", features, network.get_classifier().weight[targets])).numpy()
    heat = gradcam(network, pixels, targets, mean=MEAN, std=STD)
    np.testing.assert_allclose(heat, expected / expected.max(), atol=1e-5)


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "mobilenetv3_small_050", "test_efficientnet"])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_network_is_left_as_it_was(name: str, frozen: bool) -> None:
    network = timm.create_model(name, num_classes=3).train().requires_grad_(not frozen)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    heat = gradcam(network, pixels, np.array([0, 2]), mean=MEAN, std=STD)
    assert heat.shape == (2, 2, 2)
    assert 0 <= heat.min() <= heat.max() <= 1
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(one.grad is None and one.requires_grad is not frozen for one in network.parameters())
    assert network.training


def test_an_ensemble_gives_the_mean_of_its_members() -> None:
    torch.manual_seed(0)
    members = [timm.create_model("test_resnet", num_classes=2) for _ in range(2)]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    targets = np.array([0, 1, 1])
    both = ensemble_gradcam(Ensemble(members), pixels, targets, mean=MEAN, std=STD)
    one, other = (gradcam(member, pixels, targets, mean=MEAN, std=STD) for member in members)
    np.testing.assert_allclose(both, (one + other) / 2, atol=1e-6)


@pytest.mark.parametrize(("name", "size"), [("test_vit", 64), ("swin_tiny_patch4_window7_224", 64)])
def test_a_transformer_is_refused_and_stays_in_training_mode(name: str, size: int) -> None:
    network = timm.create_model(name, num_classes=2, img_size=size).train()
    with pytest.raises(NoHeatMapError, match="convolutional backbone"):
        gradcam(network, np.zeros((1, size, size, 3), np.uint8), np.array([0]), mean=MEAN, std=STD)
    assert network.training


@pytest.mark.slow
def test_a_learned_class_is_found_in_its_corner() -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    network = timm.create_model("test_resnet", num_classes=2)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        targets, corners = rng.integers(0, 2, count), rng.integers(0, 4, count)
        pixels = rng.integers(100, 156, (count, 64, 64, 3))
        for one, target, corner in zip(pixels, targets, corners, strict=True):
            top, left = corner // 2 * 32 + 8, corner % 2 * 32 + 8
            one[top : top + 16, left : left + 16] = (RED, BLUE)[target]
        return pixels.astype(np.uint8), targets, corners

    for _ in range(40):
        pixels, targets, _ = drawn(24)
        loss = F.cross_entropy(network(normalise(torch.from_numpy(pixels), MEAN, STD)), torch.from_numpy(targets))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pixels, targets, corners = drawn(24)
    heat = gradcam(network, pixels, targets, mean=MEAN, std=STD)
    assert np.mean(np.array(hottest_corner(heat)) == corners) > 0.9
