"""The configuration that comes with an encoder's weights, as timm writes it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open

from doctogres.encoders import configuration_beside
from doctogres.errors import WeightsError

# The head depends on our classes; the channels are in `input_size` too.
OURS: Final = ("num_classes", "drop_rate", "in_chans")
GATED: Final = ("SwiGLU", "SwiGLUPacked")  # layers of timm's


@dataclass(frozen=True)
class Configuration:
    """What matters of it here."""

    origin: str  # who says so: the file's name, or timm
    architecture: str  # timm's name, without a tag if it is a file's
    arguments: Mapping[str, Any]  # of timm.create_model
    expected: Mapping[
        str, Any
    ]  # of the input, in `Architecture`: what is stated of mean, std, interpolation, input_size


def read_configuration(path: Path) -> Configuration | None:
    """The configuration in a JSON file; None if it is not one of timm's.

    Raises:
        WeightsError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path}: not readable as JSON ({error}); download it again") from error
    return _parsed(content, path.name)


def configuration_of_file(weights: Path) -> Configuration | None:
    """The configuration of a safetensors file: beside it, or in its metadata; None if there is none."""
    beside = configuration_beside(weights)
    found = read_configuration(beside) if beside else None
    return found or _parsed(_metadata(weights), f"metadata of {weights.name}")


def _metadata(weights: Path) -> Any:
    """A safetensors file's text pairs, parsed where they are JSON; one named `config` is a whole configuration."""
    with safe_open(weights, "pt") as file:
        pairs = {name: _value(text) for name, text in (file.metadata() or {}).items()}
    return pairs.get("config", pairs)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _parsed(content: Any, origin: str) -> Configuration | None:
    """Both of timm's layouts: with `pretrained_cfg`, and the older one that has everything at the top."""
    inner = content.get("pretrained_cfg", content) if isinstance(content, Mapping) else {}
    architecture = content.get("architecture") or inner.get("architecture") if inner else None
    if not architecture:
        return None
    given = content.get("model_args") or {}
    arguments = {name: value for name, value in given.items() if value not in (None, "") and name not in OURS}
    if arguments.get("mlp_layer") in GATED:
        arguments.setdefault("act_layer", "silu")  # timm would take the architecture's own, GELU
    return Configuration(origin, architecture.split(".")[0], arguments, _expected(inner, given))


def _expected(inner: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    expected = {name: inner[name] for name in ("interpolation", "input_size") if inner.get(name)}
    if inner.get("mean") and inner.get("std"):
        expected |= {"mean": inner["mean"], "std": inner["std"]}
    channels, *size = expected.get("input_size", (3, 224, 224))
    if side := arguments.get("img_size"):
        size = [side, side] if isinstance(side, int) else list(side)
    if "input_size" in expected or side:
        expected["input_size"] = (arguments.get("in_chans", channels), *size)
    return expected
