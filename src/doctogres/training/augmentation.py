"""Augmentation for tissue, on whole batches on the device.

Tissue has no up and no left: all eight turns and flips are equally likely. Stain varies by laboratory and day: the
haematoxylin, eosin and residual densities of each patch are scaled and shifted (Tellez et al. 2018), the residual being
what is left of the optical density (Ruifrok & Johnston 2001).
"""

from typing import Final

import torch
import torch.nn.functional as F

# Optical density of haematoxylin, eosin and the residual (DAB) in R, G, B: Ruifrok & Johnston 2001, rows normalised.
STAINS: Final = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))


def dihedral(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One of the eight turns and flips for every patch: (patches, 3, size, size) -> the same shape."""
    choice = torch.randint(8, (len(batch),), generator=generator)
    result = torch.empty_like(batch)
    for variant in range(8):
        chosen = (choice == variant).nonzero().flatten().to(batch.device)
        if len(chosen):
            turned = torch.rot90(batch[chosen], variant % 4, (2, 3))
            result[chosen] = turned.flip(3) if variant >= 4 else turned
    return result


def small_affine(
    batch: torch.Tensor, generator: torch.Generator, *, degrees: float = 15, scale: float = 0.1, shift: float = 0.05
) -> torch.Tensor:
    """A small turn, zoom and shift of every patch, edges reflected: (patches, 3, size, size) -> the same shape."""
    count = len(batch)
    uniform = (torch.rand(count, 4, generator=generator) * 2 - 1).to(batch.device)
    angle = uniform[:, 0] * degrees * torch.pi / 180
    zoom = 1 + uniform[:, 1] * scale
    cosine, sine = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = [
        torch.stack([cosine, -sine, uniform[:, 2] * 2 * shift], 1),
        torch.stack([sine, cosine, uniform[:, 3] * 2 * shift], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(batch.shape), align_corners=False)
    return F.grid_sample(batch, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def stain_jitter(batch: torch.Tensor, generator: torch.Generator, *, amount: float = 0.05) -> torch.Tensor:
    """Scales and shifts each stain's density of every patch by up to `amount`: values in 0..1 before and after."""
    stains = torch.tensor(STAINS, dtype=batch.dtype)
    stains = (stains / stains.norm(dim=1, keepdim=True)).to(batch.device)
    density = -torch.log10(batch.clamp(1 / 255, 1))
    amounts = torch.einsum("bcij,ck->bkij", density, torch.linalg.inv(stains))
    uniform = (torch.rand(2, len(batch), 3, 1, 1, generator=generator) * 2 - 1).to(batch.device) * amount
    amounts = amounts * (1 + uniform[0]) + uniform[1]
    return torch.pow(10.0, -torch.einsum("bkij,kc->bcij", amounts, stains)).clamp(0, 1)


def colour_jitter(batch: torch.Tensor, generator: torch.Generator, *, amount: float = 0.1) -> torch.Tensor:
    """Brightness and contrast of every patch by up to `amount`: values in 0..1 before and after."""
    uniform = (torch.rand(2, len(batch), 1, 1, 1, generator=generator) * 2 - 1).to(batch.device) * amount
    mean = batch.mean((1, 2, 3), keepdim=True)
    return ((batch - mean) * (1 + uniform[0]) + mean * (1 + uniform[1])).clamp(0, 1)


def augment(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """All of the above, in turn: (patches, 3, size, size) in 0..1 -> the same."""
    turned = small_affine(dihedral(batch, generator), generator)
    return colour_jitter(stain_jitter(turned, generator), generator)
