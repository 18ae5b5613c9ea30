"""The patch classifier: a timm backbone with its head, layer groups from input to head, weights as safetensors."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from timm.models import group_parameters
from torch import nn

from doctogres.encoders import CONFIG_FILE
from doctogres.errors import ParameterError, WeightsError
from doctogres.files import replacing
from doctogres.model.architecture import Architecture
from doctogres.model.encoder import architecture_of, weight_shapes, weights_file
from doctogres.model.stages import keep_stages
from doctogres.model.weights import IMAGENET, NONE, OTHERS, download_errors, reason_of

Channels = tuple[float, ...] | torch.Tensor  # one number per channel


def create_network(
    backbone: str,
    *,
    classes: int,
    size: int,
    weights: str = NONE,
    dropout: float = 0.0,
    normalisation: str = "weights",
    stages: int = 0,
) -> nn.Module:
    """A timm architecture with a fresh head.

    Args:
        backbone: timm's name, `local-dir:FOLDER` or `hf-hub:NAME`.
        classes: number of outputs of the head.
        size: side of the patches in pixels.
        weights: `imagenet` (timm's download, or those in the folder or repository), `none` (random), or a safetensors
            file of the same architecture.
        dropout: rate before the classifier.
        normalisation: as for `settings.channel_statistics`.
        stages: which of its feature stages are kept, see `keep_stages`; 0 for the whole network.

    Raises:
        ParameterError: the architecture is unknown.
        WeightsError: the download failed or the file does not fit; random weights are never used silently.
    """
    architecture = architecture_of(backbone, weights, normalisation, stages)
    path = weights_file(backbone, weights)
    if path:
        given = str(path) if weights == IMAGENET else weights
        return _with_small_head(_from_file(architecture, path, given, classes=classes, size=size, dropout=dropout))
    if weights == IMAGENET:
        return _with_small_head(_downloaded(architecture, classes=classes, size=size, dropout=dropout))
    return build_network(architecture, classes=classes, size=size, dropout=dropout)


def build_network(
    architecture: Architecture,
    *,
    classes: int,
    size: int,
    dropout: float = 0.0,
    source: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A network with random weights, from what is stored in a model; needs no folder and no download.

    Args:
        architecture: with the input that the weights expect; it becomes the network's `pretrained_cfg`.
        classes: number of outputs of the head.
        size: side of the patches in pixels.
        dropout: rate before the classifier.
        source: more of timm's configuration: where weights lie that are loaded at once.

    Raises:
        ParameterError: timm's version does not know the arguments, or cannot cut the architecture after this stage.
    """
    arguments = {name: _layer(name, value) for name, value in architecture.arguments.items()}
    config = timm.get_pretrained_cfg(architecture.name)
    if "img_size" in arguments or (config and config.fixed_input_size):
        arguments["img_size"] = size  # transformers have a position embedding per input token
    expected = architecture.model_dump(include={"mean", "std", "interpolation", "input_size"})
    try:
        network: nn.Module = timm.create_model(
            architecture.name,
            pretrained=source is not None,
            pretrained_cfg_overlay={**expected, **(source or {})},
            num_classes=classes,
            drop_rate=dropout,
            **arguments,
        )
    except TypeError as error:
        raise ParameterError(
            f"backbone={architecture.name}: timm {timm.__version__} does not take the arguments of its configuration "
            f"({reason_of(error)}); correct `model_args` in {CONFIG_FILE}"
        ) from error
    if architecture.stages:
        keep_stages(network, architecture.name, architecture.stages, classes=classes)
    return network


def _layer(argument: str, value: Any) -> Any:
    """The class of a layer that timm takes only as a class; other arguments as they are."""
    if argument != "mlp_layer":
        return value
    if not hasattr(timm.layers, str(value)):
        raise ParameterError(f"mlp_layer={value}: timm has no such layer; correct `model_args` in {CONFIG_FILE}")
    return getattr(timm.layers, value)


def _with_small_head(network: nn.Module) -> nn.Module:
    """Reinitialises the head so that its first predictions are nearly uniform.

    timm initialises the heads of the MobileNet and EfficientNet families with +-1/sqrt(classes): their initial loss is
    three to six times that of guessing, and Lion, with steps of equal size, needs thousands of them to undo it.
    """
    classifier: Any = network.get_classifier()  # type: ignore[operator]
    if isinstance(classifier, nn.Linear):
        nn.init.normal_(classifier.weight, std=0.01)
        nn.init.zeros_(classifier.bias)
    return network


def _downloaded(architecture: Architecture, **shape: Any) -> nn.Module:
    name = architecture.name
    pretrained_config(name)
    try:
        return build_network(architecture, **shape, source={})
    except download_errors() as error:
        raise WeightsError(
            f"weights={IMAGENET}: the download for {name} failed ({reason_of(error)}); {OTHERS}"
        ) from error


def pretrained_config(backbone: str) -> Any:
    """Timm's record of a backbone's weights: where they lie, and for what input.

    Raises:
        ParameterError: the architecture is unknown.
        WeightsError: it has no weights.
    """
    architecture_of(backbone)
    config = timm.get_pretrained_cfg(backbone)
    if config is None or not config.has_weights:
        raise WeightsError(f"weights={IMAGENET}: timm has no pretrained weights for {backbone}; {OTHERS}")
    return config


def _from_file(architecture: Architecture, path: Path, given: str, **shape: Any) -> nn.Module:
    try:
        return _filled(architecture, path, **shape)
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise WeightsError(
            f"weights={given}: not the weights of {architecture.name} ({shorten(str(error), 200)}); give a file of that "
            f"architecture, or name its arguments as `model_args` in a {CONFIG_FILE} beside it"
        ) from error


def _filled(architecture: Architecture, path: Path, *, classes: int, size: int, dropout: float) -> nn.Module:
    """A network with all weights except the head's from the file.

    If the number of classes differs, timm loads a file leniently, so that a file of another architecture would silently
    leave random weights; with the file's own number of classes it is strict. The file's head is then discarded.
    """
    fresh = build_network(architecture, classes=classes, size=size, dropout=dropout)
    classifier: Any = fresh.get_classifier()  # type: ignore[operator]
    inside = {id(parameter) for parameter in classifier.parameters()}
    head = {name for name, parameter in fresh.named_parameters() if id(parameter) in inside}
    rows = {shape[0] for name, shape in weight_shapes(path).items() if name in head}
    stored = rows.pop() if rows else 0  # 0: a file of features only
    source = {"file": os.fspath(path), "num_classes": stored}
    whole = architecture.model_copy(update={"stages": 0})
    filled = build_network(whole, classes=stored, size=size, dropout=dropout, source=source).state_dict()
    body = {name: filled[name] for name in fresh.state_dict() if name not in head}
    fresh.load_state_dict({**fresh.state_dict(), **body})
    return fresh


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Puts the network in evaluation mode for the block: batch norm keeps its statistics, and nothing is dropped."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)


def check_patch_size(network: nn.Module, backbone: str, size: int) -> None:
    """Checks that the network can process patches of this size.

    Raises:
        ParameterError: the patches are too small for its strides.
    """
    device = next(network.parameters()).device
    try:
        with evaluating(network), torch.inference_mode():
            network(torch.zeros(1, 3, size, size, device=device))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ParameterError(
            f"patch_size={size}: {backbone} cannot process patches of {size} pixels ({reason}); give a larger size, such as 64"
        ) from error


def normalisation(network: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel (of values in 0..1) that the backbone expects, from timm."""
    cfg: Any = network.pretrained_cfg
    return tuple(cfg["mean"]), tuple(cfg["std"])


def layer_groups(network: nn.Module) -> list[list[str]]:
    """Parameter names from input to head, a list per block, by timm's group matcher; the head is the last."""
    grouped: dict[int, list[str]] = group_parameters(network, network.group_matcher(coarse=False))  # type: ignore[operator]
    groups = [grouped[level] for level in sorted(grouped)]
    parameters = dict(network.named_parameters())
    last = {id(parameters[name]) for name in groups[-1]}
    classifier: Any = network.get_classifier()  # type: ignore[operator]
    if not isinstance(classifier, nn.Module):
        raise ParameterError("backbone: it has several classifiers (a distilled network); choose another one")
    if not all(id(parameter) in last for parameter in classifier.parameters()):
        raise ParameterError("backbone: timm's group matcher does not put the classifier last; choose another one")
    return groups


def save_weights(network: nn.Module, path: Path) -> None:
    """Writes all weights and buffers as safetensors."""
    with replacing(path) as partial:
        save_file({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}, partial)


def load_weights(network: nn.Module, path: Path) -> None:
    """Loads weights written by `save_weights` into a network of the same shape; anything else raises a WeightsError."""
    try:
        network.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: does not contain the weights of this network ({str(error).splitlines()[0]})"
        ) from error


def normalise(pixels: torch.Tensor, mean: Channels, std: Channels) -> torch.Tensor:
    """Patches as network input.

    Args:
        pixels: (patches, height, width, 3) uint8 RGB, on any device.
        mean: per channel, of values in 0..1.
        std: per channel.

    Returns:
        (patches, 3, height, width) float32.
    """
    return standardise(unit_range(pixels), mean, std)


def unit_range(pixels: torch.Tensor) -> torch.Tensor:
    """(patches, height, width, 3) uint8 -> (patches, 3, height, width) float32 in 0..1."""
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def standardise(unit: torch.Tensor, mean: Channels, std: Channels) -> torch.Tensor:
    """(patches, 3, height, width) in 0..1 -> the same, minus the mean, over the standard deviation."""
    centre, spread = (
        torch.as_tensor(values, dtype=unit.dtype, device=unit.device).view(1, 3, 1, 1) for values in (mean, std)
    )
    return (unit - centre) / spread
