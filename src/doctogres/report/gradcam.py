"""Grad-CAM: where in a patch the evidence for a class comes from (Selvaraju et al., ICCV 2017)."""

from typing import Any, ClassVar, Final

import numpy as np
import torch
from captum.attr import LayerGradCam
from numpy.typing import NDArray
from torch import nn

from doctogres.errors import DoctogresError
from doctogres.model.ensemble import Ensemble
from doctogres.model.network import evaluating, normalise

SMALLEST_MAP: Final = 2  # cells per side: a single cell would be the whole patch


class NoHeatMapError(DoctogresError):
    """The network has no layer with a spatial feature map, so Grad-CAM is impossible."""

    code: ClassVar[str] = "no_heat_map"


def gradcam(
    network: nn.Module,
    pixels: NDArray[np.uint8],
    targets: NDArray[np.int64],
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> NDArray[np.float32]:
    """Returns heat maps (patches, rows, columns) in 0..1, at the resolution of the last spatial feature map.

    The channels of the last layer with a spatial feature map are summed, weighted by their mean gradients, and negative
    evidence is set to 0. The maps are divided by the maximum over ALL given patches: 1 is the strongest evidence among
    them, and a patch without any stays at 0. The network's mode, weights and gradients are left unchanged.

    Args:
        network: a timm classifier, on the device to run on.
        pixels: (patches, size, size, 3) RGB.
        targets: (patches,) index of the class to explain.
        mean: per channel, as for `network.normalise`.
        std: per channel.

    Raises:
        NoHeatMapError: no layer has a spatial feature map (in a transformer, for example).
    """
    device = next(network.parameters()).device
    inputs = normalise(torch.from_numpy(np.array(pixels)).to(device), mean, std)
    with evaluating(network):
        layer = _last_map(network, inputs[:1])
        # The inputs carry the gradient, so that frozen weights do not matter; captum leaves none behind in them.
        heat: Any = LayerGradCam(network, layer).attribute(
            inputs.requires_grad_(), torch.from_numpy(targets).to(device), relu_attributions=True
        )
    values = heat.detach().float().cpu().numpy()[:, 0]  # (patches, rows, columns)
    highest = float(values.max(initial=0.0))
    return np.asarray(values / highest if highest > 0 else np.zeros_like(values), dtype=np.float32)


def ensemble_gradcam(
    ensemble: Ensemble,
    pixels: NDArray[np.uint8],
    targets: NDArray[np.int64],
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> NDArray[np.float32]:
    """Returns the mean of the networks' maps, each scaled to 0..1 on its own; see `gradcam`."""
    maps = [gradcam(member, pixels, targets, mean=mean, std=std) for member in ensemble.members]
    return np.asarray(np.mean(maps, axis=0), dtype=np.float32)


@torch.inference_mode()
def _last_map(network: nn.Module, inputs: torch.Tensor) -> nn.Module:
    """The last of timm's feature layers with a spatial feature map."""
    listed: Any = getattr(network, "feature_info", [])
    names = [entry["module"] for entry in getattr(listed, "info", listed)]
    shapes: dict[str, tuple[int, ...]] = {}

    def remember(name: str) -> Any:
        return lambda _module, _inputs, output: shapes.update({name: tuple(getattr(output, "shape", ()))})

    hooks = [network.get_submodule(name).register_forward_hook(remember(name)) for name in names]
    try:
        network(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    # (patch, channels, height, width); tokens are (patch, tokens, channels), and some transformers put channels last.
    channels_first = getattr(network, "output_fmt", "NCHW") == "NCHW"
    maps = [name for name, shape in shapes.items() if len(shape) == 4 and min(shape[2:]) >= SMALLEST_MAP]
    if not maps or not channels_first:
        raise NoHeatMapError(
            f"{type(network).__name__} has no layer with a spatial feature map for patches of {inputs.shape[3]} px; "
            "Grad-CAM needs a convolutional backbone and patches large enough for a feature map of at least 2×2"
        )
    return network.get_submodule(maps[-1])
