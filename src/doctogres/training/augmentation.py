"""Augmentation for tissue, on whole batches on the device.

Tissue has no up and no left: all eight turns and flips are equally likely, and with a small turn, zoom and shift they
make one matrix per patch and one interpolation. Stain varies by laboratory and day: the haematoxylin, eosin and
residual densities of each patch are scaled and shifted (Tellez et al. 2018), the residual being what is left of the
optical density (Ruifrok & Johnston 2001). That is linear in the logarithm of the values: again a matrix per patch,
and the contrast's factor goes in with it.
"""

import math
from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F

from doctogres.slides.turns import TURNS

# Optical density in R, G, B of haematoxylin, eosin and the residual (DAB), a column each: Ruifrok & Johnston 2001.
STAINS: Final = F.normalize(torch.tensor([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])).T
UNMIXING: Final = torch.linalg.inv(STAINS)
# The places (x, y) of the eight turns, as matrices, because one interpolation turns, moves and zooms: (8, 2, 2).
QUARTER: Final = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
DIHEDRAL: Final = torch.stack(
    [QUARTER.matrix_power(quarters) * torch.tensor([-1.0 if mirrored else 1.0, 1.0]) for quarters, mirrored in TURNS]
)
CACHED_PIXELS: Final = 2**15  # a CPU works on about so many at a time, so that what lies between stays in its cache


@dataclass(frozen=True)
class Strength:
    """How far a patch may change; every amount is drawn evenly from -amount to +amount."""

    turns: bool = True  # one of the eight turns and flips
    degrees: float = 15  # of a turn more
    scale: float = 0.1  # zoom, as a share
    shift: float = 0.05  # as a share of the side, in x and in y
    stain: float = 0.05  # a stain's density: as a factor's share, and in units of optical density
    colour: float = 0.1  # contrast around the patch's mean, and brightness, as a share of that mean


DEFAULT: Final = Strength()


def _even(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Draws evenly from -1..1."""
    return torch.rand(*shape, generator=generator) * 2 - 1


def placements(count: int, generator: torch.Generator, strength: Strength) -> torch.Tensor:
    """Where each patch takes its values: (count, 2, 3), places in -1..1 (x, y) of the new patch -> those of the old."""
    choice = torch.randint(8 if strength.turns else 1, (count,), generator=generator)
    turn, zoom, across, down = _even(generator, count, 4).T
    angle, zoom = torch.deg2rad(turn * strength.degrees), 1 + zoom * strength.scale
    cosine, sine = angle.cos() * zoom, angle.sin() * zoom
    affine = torch.stack([cosine, -sine, across * 2 * strength.shift, sine, cosine, down * 2 * strength.shift], 1)
    return DIHEDRAL[choice] @ affine.view(count, 2, 3)


def stain_change(scales: torch.Tensor, shifts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What to add to each patch's optical density when its stains change.

    Args:
        scales: (patches, 3) each stain's density becomes `1 + scale` times as much.
        shifts: (patches, 3) and that much more.

    Returns:
        (patches, 3, 3) and (patches, 3, 1): the density (R, G, B) grows by matrix @ density + offset.
    """
    return (STAINS * scales[:, None]) @ UNMIXING, STAINS @ shifts[:, :, None]


def augment_pixels(pixels: torch.Tensor, generator: torch.Generator, strength: Strength = DEFAULT) -> torch.Tensor:
    """Patches turned, moved, restained and recoloured, edges reflected.

    Args:
        pixels: (patches, size, size, 3) uint8, on any device.
        generator: on the CPU, so that the draws are the same on every device.
        strength: of the changes.

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
    lift = (brightness - contrast) / (1 + contrast)  # times the mean, around which the contrast turns
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
