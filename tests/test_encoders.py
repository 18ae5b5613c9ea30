"""Encoders and weights at addresses, here fsspec's store in memory: the same as in a folder, and every refusal a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from fsspec.implementations.memory import MemoryFileSystem
from safetensors.torch import save_file
from timm.models._hub import save_for_hf  # no public module exports it

from doctogres.encoders import forget_copies, weights_path
from doctogres.errors import DoctogresError
from doctogres.model.encoder import architecture_of
from doctogres.model.network import create_network, normalisation
from doctogres.model.weights import check_local_weights, check_weights
from doctogres.tracking.fingerprints import fingerprint

ADDRESS = "memory://bucket/lab/weights.safetensors"
FOLDER = "memory://bucket/encoder"
STATISTICS = {"mean": [0.7, 0.5, 0.6], "std": [0.2, 0.3, 0.2]}
CONFIGURATION = json.dumps({"architecture": "test_resnet", "pretrained_cfg": STATISTICS})


@pytest.fixture
def files(tmp_path: Path, in_memory: MemoryFileSystem) -> Path:
    """A folder with weights, their configuration and an encoder; the same in the store."""
    network = timm.create_model("test_resnet")
    (tmp_path / "lab").mkdir()
    save_file(network.state_dict(), tmp_path / "lab" / "weights.safetensors")
    (tmp_path / "lab" / "config.json").write_text(CONFIGURATION)
    save_for_hf(network, str(tmp_path / "encoder"), safe_serialization=True)
    for name in ("lab", "encoder"):
        in_memory.put(str(tmp_path / name), f"/bucket/{name}", recursive=True)
    return tmp_path


def stem(backbone: str, weights: str) -> torch.Tensor:
    network: Any = create_network(backbone, classes=3, size=32, weights=weights)
    found: torch.Tensor = next(network.parameters())
    return found


@pytest.mark.parametrize(
    ("there", "here"),
    [
        (("test_resnet", ADDRESS), ("test_resnet", "lab/weights.safetensors")),
        ((f"local-dir:{FOLDER}", "imagenet"), ("local-dir:encoder", "imagenet")),
    ],
)
def test_an_encoder_at_an_address_is_that_of_the_folder(
    files: Path, monkeypatch: pytest.MonkeyPatch, there: tuple[str, str], here: tuple[str, str]
) -> None:
    monkeypatch.chdir(files)
    for encoder in (there, here):
        check_local_weights(*encoder)
        check_weights(*encoder)
    assert torch.equal(stem(*there), stem(*here))
    assert architecture_of(*there) == architecture_of(*here)


def test_the_configuration_beside_weights_at_an_address_is_theirs(files: Path) -> None:
    network = create_network("test_resnet", classes=3, size=32, weights=ADDRESS)
    assert normalisation(network) == (tuple(STATISTICS["mean"]), tuple(STATISTICS["std"]))


def mark(settings: dict[str, Any]) -> str:
    return fingerprint("doctogres.stages.train", {f"train.{name}": value for name, value in settings.items()}, {})


@pytest.mark.parametrize(
    ("name", "there", "here", "others"),
    [
        ("weights", ADDRESS, "lab/weights.safetensors", ["none", "encoder/model.safetensors"]),
        ("weights", f"none, {ADDRESS}", "none,lab/weights.safetensors", [f"{ADDRESS},none", "none,none"]),
        ("backbone", f"test_vit,local-dir:{FOLDER}", "test_vit,local-dir:encoder", ["test_vit,test_resnet"]),
    ],
)
def test_a_run_does_not_depend_on_where_its_weights_lie(
    files: Path, monkeypatch: pytest.MonkeyPatch, name: str, there: str, here: str, others: list[str]
) -> None:
    monkeypatch.chdir(files)
    assert mark({name: there}) == mark({name: here})
    assert len({mark({name: value}) for value in (here, *others)}) == 1 + len(others)


def test_a_study_depends_on_the_content_of_its_choices(
    files: Path, in_memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {"weights": {"choices": ("none", ADDRESS)}, "dropout": {"low": 0.1, "high": 0.5}}
    before = mark({"space": space})
    assert before == mark({"space": space})
    in_memory.pipe_file("/bucket/lab/weights.safetensors", b"other")
    forget_copies()  # as another process
    assert mark({"space": space}) != before


def test_a_process_keeps_to_the_weights_that_it_found(files: Path, in_memory: MemoryFileSystem) -> None:
    first = weights_path(ADDRESS)
    in_memory.pipe_file("/bucket/lab/weights.safetensors", b"other")
    assert weights_path(ADDRESS) == first
    forget_copies()
    assert weights_path(ADDRESS).read_bytes() == b"other"


@pytest.mark.parametrize(
    ("backbone", "weights", "said"),
    [
        ("test_resnet", "memory://bucket/none.safetensors", "weights=memory://bucket/none.safetensors does not exist"),
        ("test_resnet", "memory://bucket/lab/config.json", "no such .safetensors file (memory://bucket/lab/config"),
        ("test_resnet", "gs://bucket/x.safetensors", "weights=gs://bucket/x.safetensors: gs:// needs another package"),
        ("test_resnet", "s3://KEY:Apfelkuchen@bucket/x.safetensors", "credentials"),
        ("local-dir:memory://bucket/none", "imagenet", "memory://bucket/none does not exist"),
        ("local-dir:memory://bucket/lab", "none", ""),  # one with a configuration
        ("local-dir:memory://bucket", "none", "backbone=local-dir:memory://bucket: there is no memory://bucket/config"),
        ("local-dir:gs://bucket/x", "none", "backbone=gs://bucket/x: gs:// needs another package"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_sentence(files: Path, backbone: str, weights: str, said: str) -> None:
    if not said:
        check_weights(backbone, weights)
        return
    with pytest.raises(DoctogresError) as error:
        check_weights(backbone, weights)
    assert said in str(error.value)
    assert "Apfelkuchen" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_refusal_names_the_credentials(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("The provided token has expired.")

    monkeypatch.setattr(MemoryFileSystem, "info", refuse)
    check_local_weights("test_resnet", ADDRESS)  # asks nobody
    with pytest.raises(DoctogresError, match=f"{ADDRESS} is refused .* renew the credentials"):
        check_weights("test_resnet", ADDRESS)


@pytest.mark.parametrize("content", [b"x" * 200, None])
def test_weights_that_do_not_fit_are_named_by_their_address(
    files: Path, in_memory: MemoryFileSystem, content: bytes | None
) -> None:
    if content:
        in_memory.pipe_file("/bucket/lab/weights.safetensors", content)
    else:
        in_memory.rm_file("/bucket/lab/config.json")
    with pytest.raises(DoctogresError, match=f"^weights={ADDRESS}: "):
        create_network("test_convnext", classes=3, size=32, weights=ADDRESS)
