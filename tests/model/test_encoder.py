"""Encoders in a folder, in a repository and in a file: architecture, input and weights, for small networks of known shapes."""

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from timm.layers import SwiGLUPacked
from timm.models._hub import save_for_hf  # no public module exports it

from doctogres.errors import ParameterError, WeightsError
from doctogres.model.architecture import Architecture
from doctogres.model.encoder import architecture_of
from doctogres.model.network import build_network, create_network, load_weights, normalisation, save_weights
from doctogres.model.weights import check_weights

LUNIT = {"mean": (0.7, 0.54, 0.66), "std": (0.22, 0.26, 0.21)}
SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 0}
UNI: dict[str, Any] = {"init_values": 1e-5, "dynamic_img_size": True}
UNI2: dict[str, Any] = {
    "patch_size": 14, "reg_tokens": 4, "no_embed_class": True, "mlp_ratio": 5.33334, "mlp_layer": SwiGLUPacked,
    "act_layer": torch.nn.SiLU,
}  # fmt: skip
SHAPES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "uni": ("vit_large_patch16_224", 64, UNI),
    "uni2": ("vit_giant_patch14_224", 56, UNI | UNI2),
    "lunit": ("vit_small_patch16_224", 64, {}),
}
CLASSES: dict[str, Any] = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}  # what JSON cannot hold, by name


@pytest.fixture(autouse=True)
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def saved(folder: Path, shape: str, *, classes: int = 0, named: bool = True, drop: tuple[str, ...] = ()) -> Any:
    """An encoder with random weights, saved as timm does, with Lunit's statistics; `drop`: arguments left unsaid."""
    name, size, arguments = SHAPES[shape]
    torch.manual_seed(3)
    network = timm.create_model(name, img_size=size, **SMALL | arguments | {"num_classes": classes}).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # LayerScale's 1e-5 would hide every block
    save_for_hf(
        network, str(folder), safe_serialization=True, data_config=LUNIT | {"interpolation": "bilinear"},
        model_args=CLASSES if shape == "uni2" else {},
    )  # fmt: skip
    edited(folder, lambda content: [content["model_args"].pop(name, None) for name in drop])
    return network


def edited(folder: Path, change: Any) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


def features(network: Any, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = network.eval().forward_head(network.forward_features(pixels), pre_logits=True)
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_an_encoder_in_a_folder_gives_the_features_of_the_one_that_was_saved(shape: str, tmp_path: Path) -> None:
    original, size = saved(tmp_path, shape), SHAPES[shape][1]
    network: Any = create_network(f"local-dir:{tmp_path}", classes=3, size=size, weights="imagenet")
    pixels = torch.rand(2, 3, size, size)
    assert torch.equal(features(network, pixels), features(original, pixels))
    assert network(pixels).shape == (2, 3)
    assert normalisation(network) == (LUNIT["mean"], LUNIT["std"])
    described = architecture_of(f"local-dir:{tmp_path}", "imagenet")
    assert (described.interpolation, described.input_size) == ("bilinear", (3, size, size))
    assert (described.normalised_by, described.assumed) == ("config.json", False)


@pytest.mark.parametrize(
    ("shape", "drop"),
    [
        ("uni", ("init_values",)),
        ("uni2", ("mlp_layer", "act_layer")),
        ("uni2", ("act_layer",)),
        ("uni2", ("init_values",)),
    ],
)
def test_what_a_configuration_leaves_out_is_seen_in_the_weights(
    shape: str, drop: tuple[str, ...], tmp_path: Path
) -> None:
    original, size = saved(tmp_path, shape, drop=drop), SHAPES[shape][1]
    network = create_network(f"local-dir:{tmp_path}", classes=3, size=size, weights="imagenet")
    pixels = torch.rand(2, 3, size, size)
    assert torch.equal(features(network, pixels), features(original, pixels))


def test_other_patches_are_seen_as_by_an_encoder_that_takes_any_size(tmp_path: Path) -> None:
    original = saved(tmp_path, "uni")
    network = create_network(f"local-dir:{tmp_path}", classes=3, size=96, weights="imagenet")
    pixels = torch.rand(2, 3, 96, 96)
    assert torch.allclose(features(network, pixels), features(original, pixels), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_stored_model_needs_neither_the_folder_nor_its_file(shape: str, tmp_path: Path) -> None:
    size, folder = SHAPES[shape][1], tmp_path / "encoder"
    saved(folder, shape, drop=("mlp_layer", "act_layer"))
    trained = create_network(f"local-dir:{folder}", classes=3, size=size, weights="imagenet").eval()
    stored = architecture_of(f"local-dir:{folder}", "imagenet").model_dump_json()
    save_weights(trained, tmp_path / "model.safetensors")
    shutil.rmtree(folder)
    served = build_network(Architecture.model_validate_json(stored), classes=3, size=size).eval()
    load_weights(served, tmp_path / "model.safetensors")
    pixels = torch.rand(2, 3, size, size)
    assert torch.equal(served(pixels), trained(pixels))
    assert normalisation(served) == normalisation(trained)
    assert str(tmp_path) not in stored


def test_the_head_in_a_folder_is_discarded(tmp_path: Path) -> None:
    original = saved(tmp_path, "lunit", classes=7)
    network: Any = create_network(f"local-dir:{tmp_path}", classes=7, size=64, weights="imagenet")
    assert not torch.equal(network.head.weight, original.head.weight)
    assert torch.equal(network.blocks[1].mlp.fc2.weight, original.blocks[1].mlp.fc2.weight)


@pytest.mark.parametrize("change", ["drop", "add"])
def test_weights_that_fill_the_network_only_in_part_are_refused(change: str, tmp_path: Path) -> None:
    saved(tmp_path, "uni")
    state = load_file(tmp_path / "model.safetensors")
    state = {name: value for name, value in state.items() if change == "add" or "blocks.1.norm1" not in name}
    save_file(
        state | ({"blocks.2.norm1.weight": torch.ones(32)} if change == "add" else {}), tmp_path / "model.safetensors"
    )
    with pytest.raises(WeightsError, match=r"model\.safetensors: not the weights of vit_large.*blocks\..\.norm1"):
        create_network(f"local-dir:{tmp_path}", classes=3, size=64, weights="imagenet")


def test_a_folder_with_weights_of_pytorch_serves_as_well(tmp_path: Path) -> None:
    original = saved(tmp_path, "uni")
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    network = create_network(f"local-dir:{tmp_path}", classes=3, size=64, weights="imagenet")
    pixels = torch.rand(1, 3, 64, 64)
    assert torch.equal(features(network, pixels), features(original, pixels))


def test_an_encoder_that_pools_nothing_still_gives_one_answer_per_patch(tmp_path: Path) -> None:
    saved(tmp_path, "uni")
    edited(tmp_path, lambda content: content["model_args"].update(global_pool=""))
    network = create_network(f"local-dir:{tmp_path}", classes=3, size=64, weights="imagenet")
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 3)


def test_without_weights_the_folder_gives_the_architecture(tmp_path: Path) -> None:
    original = saved(tmp_path, "uni")
    (tmp_path / "model.safetensors").unlink()
    network: Any = create_network(f"local-dir:{tmp_path}", classes=3, size=64)
    assert network.patch_embed.proj.weight.shape == original.patch_embed.proj.weight.shape
    assert not torch.equal(network.patch_embed.proj.weight, original.patch_embed.proj.weight)


def resnet_file(folder: Path, metadata: dict[str, str] | None = None) -> Path:
    path = folder / "encoder.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=5).state_dict(), path, metadata=metadata)
    return path


def said(architecture: str = "test_resnet", **fields: Any) -> str:
    return json.dumps({"architecture": architecture, "pretrained_cfg": LUNIT | fields})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", said()),
        ("encoder.json", said("test_resnet.of_a_laboratory")),
        ("config.json", json.dumps({"architecture": "test_resnet", **LUNIT})),  # timm's older layout
    ],
)
def test_a_file_is_normalised_as_the_configuration_beside_it_says(name: str, text: str, tmp_path: Path) -> None:
    path = resnet_file(tmp_path)
    (tmp_path / name).write_text(text, "utf-8")
    network = create_network("test_resnet", classes=3, size=32, weights=str(path))
    assert normalisation(network) == (LUNIT["mean"], LUNIT["std"])
    described = architecture_of("test_resnet", str(path))
    assert (described.normalised_by, described.assumed) == (name, False)


@pytest.mark.parametrize(
    "pairs", [{"config": said()}, {name: json.dumps(value) for name, value in json.loads(said()).items()}]
)
def test_the_metadata_of_a_file_is_a_configuration_too(pairs: dict[str, str], tmp_path: Path) -> None:
    described = architecture_of("test_resnet", str(resnet_file(tmp_path, pairs)))
    assert (described.mean, described.std) == (LUNIT["mean"], LUNIT["std"])
    assert described.normalised_by == "metadata of encoder.safetensors"


def test_the_file_of_its_own_name_counts_before_that_of_the_folder(tmp_path: Path) -> None:
    path = resnet_file(tmp_path)
    (tmp_path / "config.json").write_text(said(mean=(0.1, 0.1, 0.1)), "utf-8")
    (tmp_path / "encoder.json").write_text(said(), "utf-8")
    assert architecture_of("test_resnet", str(path)).mean == LUNIT["mean"]


@pytest.mark.parametrize(
    "beside", [None, '{"architectures": ["ViTModel"], "model_type": "vit"}', '{"architecture": "test_resnet"}']
)
def test_a_file_that_states_no_normalisation_gets_timms_and_it_is_known_as_assumed(
    beside: str | None, tmp_path: Path
) -> None:
    path = resnet_file(tmp_path)
    if beside:
        (tmp_path / "config.json").write_text(beside, "utf-8")
    described = architecture_of("test_resnet", str(path))
    assert described.assumed
    assert str(described) == ("mean 0.5, 0.5, 0.5, deviation 0.5, 0.5, 0.5 (timm's default for test_resnet)")


@pytest.mark.parametrize(
    ("given", "mean", "std"),
    [("half", 0.5, 0.5), ("imagenet", 0.485, 0.229), ("0.7,0.5,0.6,0.2,0.3,0.25", 0.7, 0.2)],
)
def test_the_setting_decides_over_every_configuration(given: str, mean: float, std: float, tmp_path: Path) -> None:
    path = resnet_file(tmp_path)
    (tmp_path / "config.json").write_text(said(), "utf-8")
    network = create_network("test_resnet", classes=3, size=32, weights=str(path), normalisation=given)
    assert [values[0] for values in normalisation(network)] == [mean, std]
    assert not architecture_of("test_resnet", str(path), given).assumed


def test_the_configuration_of_another_architecture_is_refused(tmp_path: Path) -> None:
    path = resnet_file(tmp_path)
    (tmp_path / "config.json").write_text(said("test_vit"), "utf-8")
    with pytest.raises(WeightsError, match=r"config\.json says test_vit; give backbone=test_vit"):
        architecture_of("test_resnet", str(path))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", r"config\.json: not readable as JSON"),
        ('{"model_type": "vit"}', "names no architecture of timm's"),
        (said("vit_of_nobody"), "no such architecture as vit_of_nobody"),
        (said(mean=(0.5,)), r"config\.json: mean=.*correct the configuration"),
        (said(std=(0.5, 0.5, 0.0)), r"config\.json: std=.*greater than 0"),
        (said(input_size=(1, 32, 32)), r"config\.json: input_size=.*3"),
        (json.dumps({"architecture": "test_resnet", "model_args": {"antlers": 2}, "pretrained_cfg": LUNIT}), "antlers"),
        (
            json.dumps({"architecture": "test_vit", "model_args": {"mlp_layer": "Sponge"}, "pretrained_cfg": LUNIT}),
            "Sponge",
        ),
    ],
)
def test_a_configuration_that_cannot_be_used_is_named_with_the_remedy(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text, "utf-8")
    with pytest.raises((WeightsError, ParameterError), match=problem) as error:
        create_network(f"local-dir:{tmp_path}", classes=3, size=32)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("check", [check_weights, architecture_of])
def test_a_folder_that_lacks_a_file_is_refused_before_any_work(check: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"there is no {tmp_path}/config.json"):
        check(f"local-dir:{tmp_path}", "imagenet")
    (tmp_path / "config.json").write_text(said(), "utf-8")
    with pytest.raises(WeightsError, match=r"neither model\.safetensors nor .*weights=none"):
        check(f"local-dir:{tmp_path}", "imagenet")
    check(f"local-dir:{tmp_path}", "none")
    resnet_file(tmp_path)  # the only one, whatever its name
    check(f"local-dir:{tmp_path}", "imagenet")
    shutil.copy(tmp_path / "encoder.safetensors", tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="neither"):
        check(f"local-dir:{tmp_path}", "imagenet")


def test_a_repository_or_folder_without_its_prefix_gets_the_syntax() -> None:
    with pytest.raises(ParameterError, match=r"for a folder give local-dir:FOLDER, for a repository hf-hub:NAME"):
        architecture_of("MahmoodLab/UNI")


@pytest.mark.parametrize("check", [check_weights, architecture_of])
def test_a_repository_without_network_and_cache_names_the_remedies(check: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as error:
        check("hf-hub:MahmoodLab/UNI", "imagenet")
    for part in ("backbone=hf-hub:MahmoodLab/UNI", str(tmp_path / "cache"), "HF_HOME", "backbone=local-dir:FOLDER"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server like Hugging Face's on this machine: gives the files of the folder `lab/open`, and refuses all others."""
    folder = tmp_path / "lab"

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer()

        def do_GET(self) -> None:
            self.wfile.write(self._answer())

        def _answer(self) -> bytes:
            repository, _, file = self.path.partition("/resolve/main/")
            path = folder / "open" / file
            content = path.read_bytes() if path.is_file() else b""
            gated = repository != "/lab/open"
            self.send_response(403 if gated else 200 if content else 404)
            if gated or not content:
                self.send_header("X-Error-Code", "GatedRepo" if gated else "EntryNotFound")
            self.send_header("ETag", f'"{file}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return content

        def log_message(self, format: str, *arguments: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    yield folder
    server.shutdown()
    server.server_close()


def test_an_encoder_is_fetched_from_a_repository_once(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = saved(hub / "open", "uni")
    check_weights("hf-hub:lab/open", "imagenet")
    network = create_network("hf-hub:lab/open", classes=3, size=64, weights="imagenet")
    pixels = torch.rand(1, 3, 64, 64)
    assert torch.equal(features(network, pixels), features(original, pixels))
    assert normalisation(network) == (LUNIT["mean"], LUNIT["std"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    check_weights("hf-hub:lab/open", "imagenet")
    create_network("hf-hub:lab/open", classes=3, size=64, weights="imagenet")


@pytest.mark.parametrize("check", [check_weights, architecture_of])
def test_a_gated_repository_says_how_to_get_access(check: Any, hub: Path) -> None:
    with pytest.raises(WeightsError) as error:
        check("hf-hub:lab/gated", "imagenet")
    for part in ("accept the terms on https://huggingface.co/lab/gated", "hf auth login", "backbone=local-dir:FOLDER"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("check", [check_weights, architecture_of])
def test_a_repository_without_weights_is_refused(check: Any, hub: Path) -> None:
    saved(hub / "open", "uni")
    (hub / "open" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="backbone=hf-hub:lab/open: not in the cache"):
        check("hf-hub:lab/open", "imagenet")
