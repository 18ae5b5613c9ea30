"""The patch classifier: a timm backbone with its head, layer groups from input to head, weights as safetensors."""

import difflib
import os
from pathlib import Path
from typing import Any, Final

import timm
import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from timm.models import group_parameters
from torch import nn

from doctogres.errors import ParameterError, WeightsError
from doctogres.files import replacing
from doctogres.model.weights import OTHERS, check_weights_file

Channels = tuple[float, ...] | torch.Tensor  # one number per channel
DOWNLOAD_ERRORS: Final = (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError)


def _arguments(backbone: str, *, classes: int, size: int, dropout: float) -> dict[str, Any]:
    if not timm.is_model(backbone):
        names = timm.list_models()
        near = difflib.get_close_matches(backbone, names, 5) or timm.list_models(f"*{backbone.split('_')[0]}*")[:5]
        raise ParameterError(
            f"backbone={backbone}: timm has no such architecture; similar names: {', '.join(near) or 'none'}"
        )
    arguments: dict[str, Any] = {"num_classes": classes, "drop_rate": dropout}
    try:
        cfg = timm.get_pretrained_cfg(backbone)
    except RuntimeError as error:  # the architecture exists, the tag after the dot does not
        tags = ", ".join(timm.list_pretrained(f"{backbone.split('.')[0]}.*")[:5])
        raise ParameterError(f"backbone={backbone}: timm has no such weights; it has {tags or 'none'}") from error
    if cfg is not None and cfg.fixed_input_size:
        arguments["img_size"] = size  # transformers have a position embedding per input token
    return arguments


def create_network(backbone: str, *, classes: int, size: int, weights: str = "none", dropout: float = 0.0) -> nn.Module:
    """A timm architecture with a fresh head.

    Args:
        backbone: timm's name.
        classes: number of outputs of the head.
        size: side of the patches in pixels.
        weights: `imagenet` (timm's download), `none` (random), or a safetensors file of the same architecture.
        dropout: rate before the classifier.

    Raises:
        ParameterError: the architecture is unknown.
        WeightsError: the download failed or the file does not fit; random weights are never used silently.
    """
    arguments = _arguments(backbone, classes=classes, size=size, dropout=dropout)
    if weights == "none":
        network: nn.Module = timm.create_model(backbone, pretrained=False, **arguments)
        return network
    if weights == "imagenet":
        return _with_small_head(_downloaded(backbone, arguments))
    return _with_small_head(_from_file(backbone, Path(weights), arguments))


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


def _downloaded(backbone: str, arguments: dict[str, Any]) -> nn.Module:
    pretrained_config(backbone)
    try:
        network: nn.Module = timm.create_model(backbone, pretrained=True, **arguments)
    except DOWNLOAD_ERRORS as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(f"weights=imagenet: the download for {backbone} failed ({reason}); {OTHERS}") from error
    return network


def pretrained_config(backbone: str) -> Any:
    """Timm's record of a backbone's weights: where they lie, and for what input.

    Raises:
        ParameterError: the architecture is unknown.
        WeightsError: it has no weights.
    """
    _arguments(backbone, classes=1, size=0, dropout=0.0)
    config = timm.get_pretrained_cfg(backbone)
    if config is None or not config.has_weights:
        raise WeightsError(f"weights=imagenet: timm has no pretrained weights for {backbone}; {OTHERS}")
    return config


def _from_file(backbone: str, path: Path, arguments: dict[str, Any]) -> nn.Module:
    check_weights_file(str(path))
    try:
        return _filled(backbone, path, arguments)
    except (SafetensorError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"weights={path}: not the weights of {backbone} ({reason}); give a file of that architecture"
        ) from error


def _filled(backbone: str, path: Path, arguments: dict[str, Any]) -> nn.Module:
    """A network with all weights except the head's from the file.

    If the number of classes differs, timm loads a file leniently, so that a file of another architecture would silently
    leave random weights; with the file's own number of classes it is strict. The file's head is then discarded.
    """
    fresh: nn.Module = timm.create_model(backbone, pretrained=False, **arguments)
    classifier: Any = fresh.get_classifier()  # type: ignore[operator]
    inside = {id(parameter) for parameter in classifier.parameters()}
    head = {name for name, parameter in fresh.named_parameters() if id(parameter) in inside}
    with safe_open(path, "pt") as file:
        rows = {file.get_slice(name).get_shape()[0] for name in head & set(file.keys())}
    stored = rows.pop() if rows else 0  # 0: a file of features only
    overlay = {"file": os.fspath(path), "num_classes": stored}
    filled = timm.create_model(
        backbone, pretrained=True, pretrained_cfg_overlay=overlay, **{**arguments, "num_classes": stored}
    )
    body = {name: value for name, value in filled.state_dict().items() if name not in head}
    fresh.load_state_dict({**fresh.state_dict(), **body})
    return fresh


def check_patch_size(network: nn.Module, backbone: str, size: int) -> None:
    """Checks that the network can process patches of this size.

    Raises:
        ParameterError: the patches are too small for its strides.
    """
    was_training, device = network.training, next(network.parameters()).device
    network.eval()
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, size, size, device=device))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ParameterError(
            f"patch_size={size}: {backbone} cannot process patches of {size} pixels ({reason}); give a larger size, such as 64"
        ) from error
    finally:
        network.train(was_training)


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
