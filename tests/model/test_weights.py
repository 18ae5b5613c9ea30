"""Weights that cannot be had are refused by one short question, or none where the cache has them."""

import re
from pathlib import Path

import pytest
from huggingface_hub import constants

from doctogres.errors import ParameterError, WeightsError
from doctogres.model import weights
from doctogres.presets import load_preset


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def keep(cache: Path, name: str) -> None:
    folder = cache / f"models--timm--{name}" / "snapshots" / "0123"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"")


def test_without_network_and_cache_the_remedies_are_named(cache: Path) -> None:
    with pytest.raises(WeightsError) as error:
        weights.check_weights("test_resnet", "imagenet")
    said = str(error.value)
    for part in (str(cache), "HF_HOME", "weights=FILE.safetensors", "weights=none", "offline mode is enabled"):
        assert part in said
    assert "\n" not in said


def test_what_the_cache_has_needs_no_question(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(weights, "_ask")
    keep(cache, "test_resnet.r160_in1k")
    weights.check_weights("test_resnet", "imagenet")
    weights.check_weights("test_resnet.r160_in1k", "imagenet")


def test_the_weights_of_another_backbone_are_not_enough(cache: Path) -> None:
    keep(cache, "test_resnet2.r160_in1k")
    with pytest.raises(WeightsError, match="weights of test_resnet are not in the cache"):
        weights.check_weights("test_resnet", "imagenet")


def test_a_server_is_asked_once_and_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []
    monkeypatch.setattr(
        "huggingface_hub.get_hf_file_metadata", lambda address, *, timeout: asked.append((address, timeout))
    )
    weights.check_weights("test_resnet", "imagenet")
    ((address, timeout),) = asked
    assert re.search(r"timm/test_resnet\.\w+/resolve/main/model\.safetensors$", address)
    assert timeout == weights.TIMEOUT


def test_an_unknown_backbone_is_found_out(cache: Path) -> None:
    with pytest.raises(ParameterError, match="no such architecture"):
        weights.check_weights("resnet_18", "imagenet")


@pytest.mark.parametrize("given", ["nowhere.safetensors", "imagnet", "weights.pth"])
def test_a_file_that_is_not_there_names_the_path_that_was_tried(given: str) -> None:
    with pytest.raises(WeightsError, match=re.escape(str(Path(given).absolute()))):
        weights.check_weights("test_resnet", given)


def test_everything_that_the_study_may_try_is_checked(cache: Path) -> None:
    preset = load_preset("demo")
    weights.check_all_weights(preset)
    space = {"backbone": {"choices": ["test_resnet", "test_vit"]}, "weights": {"choices": ["none", "imagenet"]}}
    content = preset.model_dump() | {"tune": {"space": space}}
    keep(cache, "test_resnet.r160_in1k")
    with pytest.raises(WeightsError, match="weights of test_vit are not in the cache"):
        weights.check_all_weights(type(preset).model_validate(content))
