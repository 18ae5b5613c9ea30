"""Cells: the appearance of each subtype's nuclei, and the drawing of epithelium."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from doctogres.synthetic.noise import Flags, noise_field
from doctogres.synthetic.stain import Pigment

SUBPIXEL: Final = 4  # cv2 draws at 1/16 px


@dataclass(frozen=True)
class CellLook:
    """The appearance of a patch of epithelium.

    Attributes:
        radius: Mean nuclear radius, px.
        pleomorphism: Spread of the logarithm of the radius.
        elongation: Mean ratio of the long to the short axis of a nucleus.
        spacing: Distance between neighbouring cells, px.
        darkness: Chromatin density, 0-1.
        mitoses: Share of cells in division.
        membrane: Strength of the ring around each cell, 0-1.
        tubules: Lumens per 1000 px of epithelium.
    """

    radius: float
    pleomorphism: float
    elongation: float
    spacing: float
    darkness: float
    mitoses: float
    membrane: float
    tubules: float


SUBTYPE_LOOKS: Final = {
    "Luminal A": CellLook(1.75, 0.08, 1.15, 6.2, 0.50, 0.000, 0.0, 2.4),
    "Luminal B": CellLook(2.40, 0.13, 1.25, 5.6, 0.70, 0.030, 0.0, 0.2),
    "HER2(+)": CellLook(2.70, 0.20, 1.20, 9.6, 0.58, 0.020, 1.0, 0.0),
    "Triple negative": CellLook(4.10, 0.44, 1.70, 8.8, 0.93, 0.300, 0.0, 0.0),
}


def blended_look(weights: NDArray[np.float64]) -> CellLook:
    """A mixture of the subtypes: the mean of `SUBTYPE_LOOKS` with `weights`, (classes,), which sum to 1."""
    table = np.array([list(vars(look).values()) for look in SUBTYPE_LOOKS.values()])
    return CellLook(*(float(value) for value in weights @ table))


def draw_nuclei(
    pigment: Pigment,
    centres: NDArray[np.float64],
    axes: NDArray[np.float64],
    angles: NDArray[np.float64],
    darkness: NDArray[np.float64],
) -> None:
    """Draw nuclei: a dark envelope and, in large ones, paler open chromatin.

    Args:
        pigment: Modified in place.
        centres: (n, 2), x and y, px.
        axes: (n, 2), semi-axes, px.
        angles: (n,), angle of the first axis, degrees.
        darkness: (n,), 0-1.
    """
    scale = 1 << SUBPIXEL
    level = np.clip(darkness * 255, 0, 255)
    for middle, half, angle, dark in zip(
        np.round(centres * scale).astype(int).tolist(), axes.tolist(), angles.tolist(), level.tolist(), strict=True
    ):
        _ellipse(pigment, middle, half, angle, dark, 1.0)
        if half[1] > 1.9 and dark < 240:
            _ellipse(pigment, middle, half, angle, dark * 0.72, 0.55)


def _ellipse(pigment: Pigment, middle: list[int], half: list[float], angle: float, level: float, size: float) -> None:
    axes = (max(1, round(half[0] * size * 16)), max(1, round(half[1] * size * 16)))
    cv2.ellipse(
        pigment.haematoxylin, (middle[0], middle[1]), axes, angle, 0, 360, level, cv2.FILLED, cv2.LINE_AA, SUBPIXEL
    )


def draw_epithelium(rng: np.random.Generator, pigment: Pigment, area: Flags, look: CellLook) -> None:
    """Fill `area`, bool (height, width), with cells of the given look, in place."""
    x, y, width, height = cv2.boundingRect(area.astype(np.uint8))
    pad = 4
    left, top = max(0, x - pad), max(0, y - pad)
    window = np.s_[top : y + height + pad, left : x + width + pad]
    inside = area[window]
    # Views: drawing on the window draws on the slide, at a cost proportional to the region's size.
    local = Pigment(pigment.haematoxylin[window], pigment.eosin[window])
    _draw_cytoplasm(rng, local, inside)
    cells = _cell_centres(rng, inside, look.spacing)
    cells = _open_lumens(rng, local, inside, cells, look)
    if look.membrane > 0.08:
        _draw_membranes(local, cells, look)
    _draw_cells(rng, local, cells, look)


def _draw_cytoplasm(rng: np.random.Generator, local: Pigment, inside: Flags) -> None:
    """Replace the stroma by the smoother, slightly purple cytoplasm of epithelial cells."""
    edge = np.asarray(cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 1.2), dtype=np.float32)
    mottle = 10 * noise_field(rng, (inside.shape[0], inside.shape[1]), 9)
    for layer, level in ((local.eosin, rng.uniform(78, 112)), (local.haematoxylin, rng.uniform(16, 34))):
        layer[:] = np.clip(layer * (1 - edge) + (level + mottle) * edge, 0, 255).astype(np.uint8)


def _cell_centres(rng: np.random.Generator, inside: Flags, spacing: float) -> NDArray[np.float64]:
    """A jittered honeycomb inside the area: float64, (n, 2), x and y, px."""
    height, width = inside.shape
    rows = np.arange(0, height, spacing * 0.87)
    columns = np.arange(0, width + spacing, spacing)
    y, x = np.meshgrid(rows, columns, indexing="ij")
    x = x - spacing / 2 * (np.arange(len(rows)) % 2)[:, None]
    grid = np.stack([x.ravel(), y.ravel()], axis=1) + rng.normal(0, 0.17 * spacing, (x.size, 2))
    column, row = np.clip(np.round(grid).astype(int), 0, (width - 1, height - 1)).T
    return np.asarray(grid[inside[row, column]], dtype=np.float64)


def _open_lumens(
    rng: np.random.Generator, local: Pigment, inside: Flags, cells: NDArray[np.float64], look: CellLook
) -> NDArray[np.float64]:
    """Draw the empty lumens of tubules; returns the cells outside them."""
    count = int(rng.poisson(look.tubules * inside.sum() / 1000))
    deep = np.asarray(cv2.erode(inside.astype(np.uint8), np.ones((9, 9), np.uint8)), dtype=np.uint8)
    spots = np.argwhere(deep > 0)
    for _ in range(count if len(spots) else 0):
        row, column = spots[int(rng.integers(len(spots)))]
        half = rng.uniform(2.2, 4.6, 2)
        box = ((float(column), float(row)), (2 * half[0], 2 * half[1]), rng.uniform(0, 180))
        cv2.ellipse(local.eosin, box, rng.uniform(6, 26), cv2.FILLED, cv2.LINE_AA)
        cv2.ellipse(local.haematoxylin, box, 2, cv2.FILLED, cv2.LINE_AA)
        cells = cells[np.hypot(cells[:, 0] - column, cells[:, 1] - row) > half.max() + look.radius * 0.8]
    return cells


def _draw_membranes(local: Pigment, cells: NDArray[np.float64], look: CellLook) -> None:
    """Ring every cell: pale cytoplasm inside a stained membrane."""
    scale = 1 << SUBPIXEL
    body = round(0.50 * look.spacing * scale)
    for x, y in np.round(cells * scale).astype(int).tolist():
        cv2.circle(local.eosin, (x, y), body, 92 - 40 * look.membrane, cv2.FILLED, cv2.LINE_AA, SUBPIXEL)
    for x, y in np.round(cells * scale).astype(int).tolist():
        cv2.circle(local.eosin, (x, y), body, 100 + 130 * look.membrane, 1, cv2.LINE_AA, SUBPIXEL)


def _draw_cells(rng: np.random.Generator, local: Pigment, cells: NDArray[np.float64], look: CellLook) -> None:
    """Draw a nucleus, or a metaphase plate in a clear halo, in every cell."""
    count = len(cells)
    size = look.radius * np.exp(rng.normal(0, look.pleomorphism, count))
    stretch = np.sqrt(1 + (look.elongation - 1) * rng.uniform(0, 2, count))
    axes = np.stack([size * stretch, size / stretch], axis=1)
    darkness = np.clip(look.darkness + rng.normal(0, 0.05 + 0.25 * look.pleomorphism, count), 0.3, 0.93)
    dividing = rng.random(count) < look.mitoses
    angles = rng.uniform(0, 180, count)
    draw_nuclei(local, cells[~dividing], axes[~dividing], angles[~dividing], darkness[~dividing])
    plates = np.column_stack([np.full(count, look.radius * 1.25), np.full(count, look.radius * 0.5)])
    for x, y in np.round(cells[dividing] * 16).astype(int).tolist():
        cv2.circle(local.haematoxylin, (x, y), round(look.radius * 22), 8, cv2.FILLED, cv2.LINE_AA, SUBPIXEL)
    draw_nuclei(local, cells[dividing], plates[dividing], angles[dividing], np.ones(int(dividing.sum())))
