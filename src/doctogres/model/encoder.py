"""From the settings `backbone`, `weights` and `normalisation` to an architecture and the file with its weights."""

import difflib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import timm
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from timm.models import PretrainedCfg, load_state_dict

from doctogres.encoders import (
    CONFIG_FILE,
    HUB,
    LOCAL,
    SUFFIX,
    WEIGHTS_FILES,
    encoder_folder,
    repository,
    source_of,
    weights_in,
    weights_path,
)
from doctogres.errors import ParameterError, WeightsError
from doctogres.model.architecture import Architecture
from doctogres.model.configuration import Configuration, configuration_of_file, read_configuration
from doctogres.model.weights import IMAGENET, NONE, check_files, download_errors, hub_error, reason_of
from doctogres.settings import channel_statistics

EXPECTED: Final = ("mean", "std", "interpolation", "input_size")
DAMAGED: Final = (SafetensorError, RuntimeError, OSError, EOFError, KeyError, ValueError)
# In this family timm's own files leave out what JSON cannot hold or a caller is told to pass; the weights show it.
VIT: Final = "timm.models.vision_transformer"


def architecture_of(
    backbone: str, weights: str = NONE, normalisation: str = "weights", stages: int = 0
) -> Architecture:
    """The architecture of an encoder, with the input that its weights expect.

    Args:
        backbone: timm's name, `local-dir:FOLDER` or `hf-hub:NAME`.
        weights: `imagenet` (timm's download, or those in the folder or repository), `none`, or a safetensors file.
        normalisation: as for `settings.channel_statistics`.
        stages: which of its feature stages are kept, see `keep_stages`; 0 for the whole network.

    Raises:
        ParameterError: the architecture is unknown.
        WeightsError: the configuration or the weights cannot be had, or do not belong together.
    """
    check_files(backbone, weights)
    own = _own_configuration(backbone)
    of_timm = _of_timm(backbone, own.architecture if own else backbone)
    path, is_file = weights_file(backbone, weights), weights not in (NONE, IMAGENET)
    shapes = weight_shapes(path, weights if is_file else "") if path else {}
    of_file = configuration_of_file(path) if path and is_file else None
    _check_belongs(of_file, of_timm.architecture, weights)
    stated = [one for one in (of_timm, own, of_file) if one]
    last = of_file if is_file else stated[-1]  # the configuration of these weights
    arguments = {name: value for one in stated for name, value in one.arguments.items()}
    fields = {name: value for one in stated for name, value in one.expected.items()} | {
        "name": of_timm.architecture,
        "stages": stages,
        "arguments": arguments | _shown_by(shapes, of_timm.architecture, arguments),
        "normalised_by": [one.origin for one in stated if "mean" in one.expected][-1],
        "assumed": weights != NONE and (last is None or "mean" not in last.expected),
    }
    if chosen := channel_statistics(normalisation):
        fields |= {"mean": chosen[0], "std": chosen[1], "normalised_by": "the setting", "assumed": False}
    return _valid(fields, stated[-1].origin)


def _valid(fields: Mapping[str, Any], origin: str) -> Architecture:
    try:
        return Architecture(**fields)
    except ValidationError as error:
        problem = error.errors()[0]
        raise WeightsError(
            f"{origin}: {problem['loc'][0]}={problem['input']}: {problem['msg']}; correct the configuration"
        ) from error


def weights_file(backbone: str, weights: str) -> Path | None:
    """The file with the weights; None for `none` and for what timm downloads itself.

    Raises:
        WeightsError: it cannot be had.
    """
    kind, place = source_of(backbone)
    if weights == NONE:
        return None
    if weights != IMAGENET:
        return weights_path(weights)
    if kind == LOCAL:
        return weights_in(encoder_folder(place))
    return _from_hub(backbone, *WEIGHTS_FILES) if kind == HUB else None


def weight_shapes(path: Path, given: str = "") -> dict[str, tuple[int, ...]]:
    """Name -> shape of the tensors in a file.

    Args:
        path: the file.
        given: what an error calls it, instead of its path.

    Raises:
        WeightsError: the file is damaged.
    """
    try:
        if path.suffix != SUFFIX:
            return {name: tuple(value.shape) for name, value in load_state_dict(str(path)).items()}
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
    except DAMAGED as error:
        raise WeightsError(
            f"weights={given or path}: no weights can be read from it ({reason_of(error)}); download it again"
        ) from error


def _own_configuration(backbone: str) -> Configuration | None:
    """That of a folder or repository; None for a name of timm's."""
    kind, place = source_of(backbone)
    if not kind:
        return None
    path = encoder_folder(place) / CONFIG_FILE if kind == LOCAL else _from_hub(backbone, CONFIG_FILE)
    found = read_configuration(path)
    if found is None:
        raise WeightsError(
            f"backbone={backbone}: its {CONFIG_FILE} names no architecture of timm's; give an encoder saved by timm"
        )
    return found


def _from_hub(backbone: str, *names: str) -> Path:
    """The first of these files that the repository has, from the cache or downloaded."""
    name, revision = repository(backbone)
    for file in names:
        try:
            return Path(hf_hub_download(name, file, revision=revision))
        except download_errors() as error:
            if not isinstance(error, EntryNotFoundError) or file == names[-1]:
                raise hub_error(backbone, error) from error
    raise AssertionError("no names")


def _of_timm(backbone: str, name: str) -> Configuration:
    """What timm says of an architecture and its weights.

    Raises:
        ParameterError: there is no such architecture, or none with this tag.
    """
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), 5) or timm.list_models(f"*{name.split('_')[0]}*")[:5]
        called = "" if name == backbone else f" as {name}"
        place = f"; for a folder give {LOCAL}:FOLDER, for a repository {HUB}:NAME" if "/" in name else ""
        raise ParameterError(
            f"backbone={backbone}: timm has no such architecture{called}; similar names: "
            f"{', '.join(near) or 'none'}{place}"
        )
    try:
        config = timm.get_pretrained_cfg(name) or PretrainedCfg()
    except RuntimeError as error:  # the architecture exists, the tag after the dot does not
        tags = ", ".join(timm.list_pretrained(f"{name.split('.')[0]}.*")[:5])
        raise ParameterError(f"backbone={backbone}: timm has no such weights; it has {tags or 'none'}") from error
    fields = asdict(config)
    return Configuration(f"timm's default for {name}", name, {}, {field: fields[field] for field in EXPECTED})


def _check_belongs(of_file: Configuration | None, name: str, weights: str) -> None:
    if of_file and of_file.architecture != name.split(".")[0]:
        raise WeightsError(
            f"weights={weights}: not the weights of {name}: {of_file.origin} says {of_file.architecture}; "
            f"give backbone={of_file.architecture} or other weights"
        )


def _shown_by(shapes: Mapping[str, tuple[int, ...]], name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that only the weights show: LayerScale, and the gated MLP, whose class no JSON can hold."""
    if timm.models.model_entrypoint(name).__module__ != VIT:
        return {}
    shown: dict[str, Any] = {}
    if "blocks.0.ls1.gamma" in shapes:
        shown["init_values"] = 1e-5  # every LayerScale is then loaded
    first, second = shapes.get("blocks.0.mlp.fc1.weight"), shapes.get("blocks.0.mlp.fc2.weight")
    if first and second and first[0] == 2 * second[1]:
        shown |= {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
    return {argument: value for argument, value in shown.items() if argument not in arguments}
