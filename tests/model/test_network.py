"""The patch classifier: architectures, weights, layer groups, normalisation."""

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from doctogres.errors import ParameterError, WeightsError
from doctogres.model.network import (
    check_patch_size,
    create_network,
    layer_groups,
    load_weights,
    normalisation,
    normalise,
    save_weights,
    standardise,
)

pytestmark = pytest.mark.usefixtures("one_thread")
BACKBONES = ("test_convnext", "convnext_atto", "test_resnet", "mobilenetv2_100", "test_efficientnet", "test_vit")
TINY = ("test_convnext", "test_resnet", "test_efficientnet", "test_vit")


def tiny(backbone="test_resnet", *, classes=4, seed=0, **options):
    torch.manual_seed(seed)
    return create_network(backbone, classes=classes, size=32, **options)


def weights_file(path, backbone, *, classes=1000, seed=5, drop=()):
    """Weights as a hub would serve them: a timm model of 1000 classes, made here."""
    torch.manual_seed(seed)
    options: dict[str, Any] = {"img_size": 32} if backbone == "test_vit" else {}
    state = timm.create_model(backbone, num_classes=classes, **options).state_dict()
    save_file({name: value for name, value in state.items() if name not in drop}, path)
    return state


def head_names(network):
    inside = {id(parameter) for parameter in network.get_classifier().parameters()}
    return {name for name, parameter in network.named_parameters() if id(parameter) in inside}


@pytest.fixture
def patches():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_architecture_answers_with_a_logit_per_class_and_can_learn(backbone):
    network = tiny(backbone)
    logits = network.eval()(torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 4)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.get_classifier().parameters())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_layer_groups_hold_every_parameter_once_and_end_with_the_head(backbone):
    network = tiny(backbone)
    groups = layer_groups(network)
    names = [name for group in groups for name in group]
    assert len(names) == len(set(names))
    assert set(names) == {name for name, _ in network.named_parameters()}
    assert head_names(network) <= set(groups[-1])
    assert all(groups)
    assert len(groups) >= 4
    size = {name: parameter.numel() for name, parameter in network.named_parameters()}
    assert sum(size[name] for name in groups[-1]) < sum(size.values()) / 4  # the head, not the backbone with it


@pytest.mark.parametrize("backbone", TINY)
def test_layer_groups_run_from_the_input_to_the_head(backbone):
    network = tiny(backbone)
    first = next(name for name, parameter in network.named_parameters() if parameter.ndim == 4)  # the first convolution
    assert first in layer_groups(network)[0]


def test_dropout_is_before_the_classifier():
    network = tiny(dropout=0.5).train()
    pixels = torch.rand(2, 3, 32, 32)
    features = network.forward_features(pixels)
    assert not torch.equal(network.forward_head(features), network.forward_head(features))
    network.eval()
    assert torch.equal(network(pixels), network(pixels))


@pytest.mark.parametrize("backbone", TINY)
def test_a_weights_file_fills_the_backbone_and_leaves_the_head_fresh(backbone, tmp_path):
    path = tmp_path / "weights.safetensors"
    stored = weights_file(path, backbone)
    network = tiny(backbone, weights=str(path))
    head = head_names(network)
    assert head
    for name, value in network.state_dict().items():
        if name in head:
            assert value.shape[0] == 4
        else:
            assert torch.equal(value, stored[name]), name
    assert not torch.equal(
        tiny(backbone, weights=str(path), seed=1).get_classifier().weight, network.get_classifier().weight
    )


def test_a_weights_file_without_a_head_is_welcome(tmp_path):
    path = tmp_path / "features.safetensors"
    stored = weights_file(path, "test_efficientnet", drop=("classifier.weight", "classifier.bias"))
    network = tiny("test_efficientnet", weights=str(path))
    assert torch.equal(network.conv_stem.weight, stored["conv_stem.weight"])


@pytest.mark.parametrize(("of", "into"), list(permutations(TINY, 2)))
def test_the_weights_of_another_architecture_are_refused_and_the_file_is_named(of, into, tmp_path):
    path = tmp_path / "other.safetensors"
    weights_file(path, of)
    with pytest.raises(WeightsError, match=rf"other\.safetensors.*not the weights of {into}"):
        tiny(into, weights=str(path))


def test_weights_that_lack_a_block_are_refused(tmp_path):
    path = tmp_path / "part.safetensors"
    names = timm.create_model("test_resnet").state_dict()
    weights_file(path, "test_resnet", drop=[name for name in names if name.startswith("layer3.")])
    with pytest.raises(WeightsError, match=r"part\.safetensors"):
        tiny(weights=str(path))


@pytest.mark.parametrize("content", [b"", b"x" * 200, b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_damaged_weights_file_is_refused(content, tmp_path):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged\.safetensors"):
        tiny(weights=str(path))


@pytest.mark.parametrize("weights", ["/nowhere/x.safetensors", "imagnet", "weights.pth", "."])
def test_what_is_neither_a_choice_nor_a_weights_file_is_refused(weights):
    with pytest.raises(WeightsError, match="not imagenet, not none, and no such .safetensors file"):
        tiny(weights=weights)


def test_an_unknown_backbone_gets_suggestions():
    with pytest.raises(ParameterError, match="backbone=resnet_18: .*similar names: .*resnet"):
        tiny("resnet_18")


def test_an_unknown_pretrained_tag_is_a_parameter_error():
    with pytest.raises(ParameterError, match=r"resnet18\.nonsense"):
        tiny("resnet18.nonsense")


def test_without_a_network_imagenet_weights_are_an_error_that_names_the_other_choices(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"download for test_resnet failed .*weights=none.*FILE\.safetensors"):
        tiny(weights="imagenet")


def test_a_failing_connection_never_ends_in_a_random_start(monkeypatch):
    def refuse(*args, **options):
        raise ConnectionError("connection reset\nby peer")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(WeightsError, match=r"failed \(connection reset\); give weights=none"):
        tiny(weights="imagenet")


def test_an_architecture_that_was_never_pretrained_says_so():
    with pytest.raises(WeightsError, match="timm has no pretrained weights for resnet200.*weights=none"):
        tiny("resnet200", weights="imagenet")


@pytest.mark.parametrize("backbone", TINY)
def test_weights_survive_their_file_bit_for_bit(backbone, tmp_path):
    network = tiny(backbone)
    network.train()(torch.rand(4, 3, 32, 32))  # moves the batch-norm statistics
    path = tmp_path / "model.safetensors"
    save_weights(network, path)
    other = tiny(backbone, seed=1)
    load_weights(other, path)
    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


def test_loading_into_another_shape_is_a_weights_error_that_names_the_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(tiny(), path)
    with pytest.raises(WeightsError, match=r"model\.safetensors: does not contain the weights"):
        load_weights(tiny(classes=5), path)
    with pytest.raises(WeightsError, match=r"gone\.safetensors"):
        load_weights(tiny(), tmp_path / "gone.safetensors")


def test_normalisation_by_hand():
    pixels = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)  # one patch of one pixel
    values = normalise(pixels, (0.5, 0.2, 0.4), (0.5, 0.1, 0.2))
    assert values.shape == (1, 3, 1, 1)
    assert values.dtype == torch.float32
    assert values.flatten().tolist() == pytest.approx([-1.0, 0.0, 3.0], abs=1e-6)


def test_normalisation_keeps_rows_and_columns_apart(patches):
    values = normalise(torch.from_numpy(patches), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert np.allclose(values.numpy(), patches.transpose(0, 3, 1, 2) / 255)
    assert torch.equal(standardise(values, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)), values)


def test_the_backbone_says_how_its_input_is_normalised():
    mean, std = normalisation(tiny("mobilenetv2_100"))
    assert mean == pytest.approx((0.485, 0.456, 0.406))
    assert std == pytest.approx((0.229, 0.224, 0.225))


def test_pretrained_weights_come_with_a_head_that_answers_about_evenly(tmp_path):
    body = create_network("mobilenetv2_100", classes=6, size=32)
    save_weights(body, tmp_path / "body.safetensors")
    network: Any = create_network("mobilenetv2_100", classes=6, size=32, weights=str(tmp_path / "body.safetensors"))
    assert network.classifier.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not network.classifier.bias.any()


def test_patches_that_a_network_leaves_nothing_of_are_refused_by_name() -> None:
    network = create_network("convnext_atto", classes=2, size=16)
    with pytest.raises(ParameterError, match=r"patch_size=16: convnext_atto cannot process .* larger"):
        check_patch_size(network, "convnext_atto", 16)
    check_patch_size(network, "convnext_atto", 64)
    assert network.training
