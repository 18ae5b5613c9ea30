"""Augmentation of tissue patches, on whole batches on the device.

Tissue has no orientation: all eight rotations and flips are equally likely. Combined with a small rotation, zoom and
shift they are one matrix per patch and need one interpolation. Stain varies between laboratories and days: the
haematoxylin, eosin and residual densities of each patch are scaled and shifted (Tellez et al. 2018), where the residual
is the rest of the optical density (Ruifrok & Johnston 2001). This is linear in the logarithm of the values: again one
matrix per patch, which includes the contrast factor.
"""

import math
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F

from doctogres.slides.turns import TURNS

# Optical density in R, G, B of haematoxylin, eosin and the residual (DAB), one column each: Ruifrok & Johnston 2001.
STAINS: Final = F.normalize(torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])).T
UNMIXING: Final = torch.linalg.inv(STAINS)
# The eight rotations and flips as matrices on (x, y), so that one interpolation rotates, shifts and zooms: (8, 2, 2).
QUARTER: Final = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
DIHEDRAL: Final = torch.stack(
    [QUARTER.matrix_power(quarters) * torch.tensor([-1.0 if mirrored else 1.0, 1.0]) for quarters, mirrored in TURNS]
)
CACHED_PIXELS: Final = 2**15  # pixels processed at a time on a CPU, so that intermediate results stay in its cache


@dataclass(frozen=True)
class Strength:
    """Maximum changes to a patch; every amount is drawn uniformly from -amount to +amount."""

    turns: bool = True  # one of the eight rotations and flips
    degrees: float = 15  # additional rotation
    scale: float = 0.1  # zoom, as a share
    shift: float = 0.05  # as a share of the side, in x and in y
    stain: float = 0.05  # stain density: relative change, and shift in units of optical density
    colour: float = 0.1  # contrast around the patch's mean, and brightness, as a share of that mean


DEFAULT: Final = Strength()


def _even(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Draws uniformly from -1..1."""
    return torch.rand(*shape, generator=generator) * 2 - 1


def placements(count: int, generator: torch.Generator, strength: Strength) -> torch.Tensor:
    """Sampling matrices: (count, 2, 3), coordinates in -1..1 (x, y) of the new patch -> those of the old."""
    choice = torch.randint(8 if strength.turns else 1, (count,), generator=generator)
    turn, zoom, across, down = _even(generator, count, 4).T
    angle, zoom = torch.deg2rad(turn * strength.degrees), 1 + zoom * strength.scale
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    affine = torch.stack([cosine, -sine, across * 2 * strength.shift, sine, cosine, down * 2 * strength.shift], 1)
    return DIHEDRAL[choice] @ affine.view(count, 2, 3)


def stain_change(scales: torch.Tensor, shifts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The change of each patch's optical density for a change of its stains.

    Args:
        scales: (patches, 3) each stain's density is multiplied by `1 + scale`,
        shifts: (patches, 3) and this is added to it.

    Returns:
        (patches, 3, 3) and (patches, 3, 1): the density (R, G, B) increases by matrix @ density + offset.
    """
    return (STAINS * scales[:, None]) @ UNMIXING, STAINS @ shifts[:, :, None]


def augment_pixels(pixels: torch.Tensor, generator: torch.Generator, strength: Strength = DEFAULT) -> torch.Tensor:
    """Patches with random rotation, shift, zoom, stain and colour; edges are reflected.

    Args:
        pixels: (patches, size, size, 3) uint8, on any device.
        generator: on the CPU, so that the draws are the same on every device.
        strength: maximum changes.

    Returns:
        (patches, 3, size, size) float32 in 0..1, on the device.
    """
    batch = pixels.permute(0, 3, 1, 2)
    count, size = len(batch), batch.shape[-1]
    places = placements(count, generator, strength)
    matrix, offset = stain_change(*_even(generator, 2, count, 3) * strength.stain)
    contrast, brightness = _even(generator, 2, count, 1, 1) * strength.colour
    # The density is -log10((value + 1) / 256), and a value becomes value / 255 * 2 ** (gain @ ln(value + 1) + level).
    gain = matrix / math.log(2)
    level = (1 + contrast).log2() - math.log2(255) - offset * math.log2(10) - gain.sum(2, keepdim=True) * math.log(256)
    lift = (brightness - contrast) / (1 + contrast)  # times the mean, the fixed point of the contrast
    places, gain, level, lift = (drawn.to(batch.device) for drawn in (places, gain, level, lift.unsqueeze(3)))
    axis = (torch.arange(size, device=batch.device) * 2 + 1) / size - 1  # the pixels' centres, -1..1 edge to edge
    points = torch.stack([axis.repeat(size), axis.repeat_interleave(size), torch.ones_like(axis).repeat(size)])
    result = torch.empty(batch.shape, device=batch.device)
    at_once = max(torch.get_num_threads(), CACHED_PIXELS // size**2) if batch.device.type == "cpu" else count
    for part in (slice(start, start + at_once) for start in range(0, count, at_once)):
        grid = torch.matmul(places[part], points).view(-1, 2, size, size).permute(0, 2, 3, 1)
        values = F.grid_sample(batch[part].float(), grid, padding_mode="reflection", align_corners=False)
        change = torch.baddbmm(level[part], gain[part], values.log1p().flatten(2)).exp2_().view_as(values)
        changed = torch.mul(values, change, out=result[part])
        changed.add_(changed.mean((1, 2, 3), keepdim=True) * lift[part]).clamp_(0, 1)
    return result
