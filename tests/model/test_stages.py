"""A backbone cut after one of its stages."""

from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from doctogres.errors import ParameterError
from doctogres.model.architecture import Architecture
from doctogres.model.encoder import architecture_of
from doctogres.model.network import build_network, create_network, layer_groups
from doctogres.model.stages import keep_stages
from doctogres.report.gradcam import gradcam
from doctogres.training.features import head_reduction

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 64
FAMILIES = ("test_resnet", "test_efficientnet", "test_convnext", "mobilenetv2_100", "mobilenetv3_small_050")


def weights_file(path, backbone):
    torch.manual_seed(5)
    network: Any = timm.create_model(backbone, num_classes=1000).eval()
    save_file(network.state_dict(), path)
    return network


@pytest.mark.parametrize("less", [0, 1, 2])
@pytest.mark.parametrize("backbone", FAMILIES)
def test_a_cut_network_pools_the_output_of_its_last_stage(tmp_path, backbone, less):
    whole = weights_file(tmp_path / "weights.safetensors", backbone)
    stages = len(whole.feature_info) - less
    pictures = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"classes": 3, "size": SIZE, "weights": str(tmp_path / "weights.safetensors")}
    network: Any = create_network(backbone, stages=stages, **options).eval()
    counted_from_the_end: Any = create_network(backbone, stages=-1 - less, **options).eval()
    with torch.inference_mode():
        (expected,) = whole.forward_intermediates(pictures, indices=[stages - 1], intermediates_only=True)
        found = network.forward_head(network.forward_features(pictures), pre_logits=True)
        also = counted_from_the_end.forward_head(counted_from_the_end.forward_features(pictures), pre_logits=True)
        assert network(pictures).shape == (2, 3)
    assert torch.allclose(found, expected.mean((2, 3)), atol=1e-4)
    assert torch.equal(found, also)
    assert network.num_features == expected.shape[1]


@pytest.mark.parametrize("backbone", [*FAMILIES, "test_vit"])
def test_a_cut_network_is_built_again_from_what_is_stored(tmp_path, backbone):
    options: dict[str, Any] = {"classes": 3, "size": SIZE}
    trained = create_network(backbone, stages=3, **options).eval()
    save_file(trained.state_dict(), tmp_path / "trained.safetensors")
    stored = architecture_of(backbone, stages=3).model_dump_json()
    served = build_network(Architecture.model_validate_json(stored), **options).eval()
    served.load_state_dict(load_file(tmp_path / "trained.safetensors"))
    pictures = torch.randn(2, 3, SIZE, SIZE)
    with torch.inference_mode():
        assert torch.equal(served(pictures), trained(pictures))
    inside = {id(parameter) for parameter in trained.get_classifier().parameters()}  # type: ignore[operator]
    names = {name for name, parameter in trained.named_parameters() if id(parameter) in inside}
    assert names <= set(layer_groups(trained)[-1])
    reduced = head_reduction(trained, SIZE)(trained.forward_features(pictures))  # type: ignore[operator]
    assert reduced.numel() < trained.forward_features(pictures).numel()  # type: ignore[operator]


def test_a_heat_map_is_that_of_the_last_stage_that_is_left():
    network = create_network("test_resnet", classes=3, size=SIZE, stages=3).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    maps = gradcam(network, pixels, np.array([0, 1]), mean=(0.5,) * 3, std=(0.5,) * 3)
    assert maps.shape == (2, SIZE // 8, SIZE // 8)  # the whole network ends at a 16th or less


@pytest.mark.parametrize("stages", [6, -6])
def test_more_stages_than_there_are_are_refused(stages):
    with pytest.raises(ParameterError, match=rf"stages={stages}: test_resnet has 5 stages; give -5 to 5"):
        create_network("test_resnet", classes=3, size=SIZE, stages=stages)


def test_an_architecture_that_cannot_be_cut_is_named():
    with pytest.raises(ParameterError, match=r"stages=1: timm cannot cut own after a stage; give stages=0"):
        keep_stages(torch.nn.Linear(1, 1), "own", 1, classes=2)
