"""A needle biopsy without its lesions: the strips, their fibres, glands, vessels, fat and stray cells."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from doctogres.synthetic.cells import draw_nuclei
from doctogres.synthetic.noise import Bytes, Flags, Floats, blob_outline, filled, noise_field, wave
from doctogres.synthetic.stain import Pigment

# Range of a strip's width in px, by number of strips on the slide.
STRIP_WIDTHS: Final = {1: (125, 200), 2: (100, 165), 3: (90, 122)}


def strip_depth(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Depth of each pixel inside one to three strips along x: float32, `shape`, px, negative on glass."""
    height, width = shape
    strips = int(rng.choice([1, 2, 3], p=[0.35, 0.45, 0.20]))
    lane = height / strips
    x = np.arange(width, dtype=np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    depth = np.full(shape, -1e3, dtype=np.float32)
    for strip in range(strips):
        half = rng.uniform(*STRIP_WIDTHS[strips]) / 2
        room = max(2.0, lane / 2 - half - 6)
        bend = wave(rng, width, 420) * room * 0.35 + (x / width - 0.5) * rng.uniform(-1, 1) * room * 0.8
        centre = (strip + 0.5) * lane + np.clip(bend, -room, room)
        span = rng.uniform(0.36, 0.48) * width
        middle = width / 2 + rng.uniform(-1, 1) * (width * 0.49 - span)
        taper = np.clip(1 - np.abs((x - middle) / span) ** 8, 0, None) ** 0.5
        reach = (half * (1 + 0.09 * wave(rng, width, 130)) + 40) * taper - 40
        depth = np.maximum(depth, reach - np.abs(y - centre))
    ragged = 3.0 * noise_field(rng, shape, 22) + 1.4 * noise_field(rng, shape, 6)
    return np.asarray(depth + ragged, dtype=np.float32)


def stroma(rng: np.random.Generator, shape: tuple[int, int]) -> Pigment:
    """Pink collagen in wavy bundles, with clefts."""
    height, width = shape
    fibres = noise_field(rng, shape, 2.2, along=26) * 0.6 + noise_field(rng, shape, 5, along=60) * 0.6
    clefts = noise_field(rng, shape, 4.5, along=46)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    # Warping straight streaks with a smooth field gives wavy collagen.
    warp_x = x + 10 * noise_field(rng, shape, 70)
    warp_y = y + 16 * noise_field(rng, shape, 64) + 4 * noise_field(rng, shape, 22)
    fibres = np.asarray(cv2.remap(fibres, warp_x, warp_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32)
    clefts = np.asarray(cv2.remap(clefts, warp_x, warp_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT), np.float32)
    loose = noise_field(rng, shape, 80)
    eosin = 112 + 22 * fibres + 14 * loose
    with np.errstate(over="ignore"):  # where it overflows, the share of the cleft is 0, as it should be
        eosin *= 1 - 0.85 / (1 + np.exp(-(clefts - 2.25 + 0.25 * loose) * 9))
    haematoxylin = 12 + 4 * noise_field(rng, shape, 40)
    return Pigment(np.clip(haematoxylin, 0, 255).astype(np.uint8), np.clip(eosin, 0, 255).astype(np.uint8))


def scatter(rng: np.random.Generator, allowed: Flags, spacing: float) -> NDArray[np.float64]:
    """About one random point per `spacing` squared px of `allowed`: float64, (n, 2), x and y, px."""
    spots = np.flatnonzero(allowed)
    count = int(len(spots) / spacing**2)
    rows, columns = np.divmod(rng.choice(spots, size=count) if count else spots[:0], allowed.shape[1])
    return np.stack([columns, rows], axis=1) + rng.uniform(-0.5, 0.5, (count, 2))


def draw_stroma_cells(rng: np.random.Generator, pigment: Pigment, allowed: Flags) -> None:
    """Spindle-shaped nuclei along the fibres, and clusters of small round lymphocytes."""
    spindles = scatter(rng, allowed, rng.uniform(11, 17))
    count = len(spindles)
    axes = np.stack([rng.uniform(2.4, 4.6, count), rng.uniform(0.7, 1.3, count)], axis=1)
    draw_nuclei(pigment, spindles, axes, rng.normal(0, 24, count), rng.uniform(0.45, 0.75, count))
    drift = noise_field(rng, (allowed.shape[0], allowed.shape[1]), 55)
    round_cells = scatter(rng, allowed & (drift > rng.uniform(1.2, 2.2)), rng.uniform(5, 8))
    count = len(round_cells)
    size = rng.uniform(1.2, 1.8, (count, 1)) * np.array([1.05, 0.95])
    draw_nuclei(pigment, round_cells, size, np.zeros(count), rng.uniform(0.7, 0.92, count))


def find_spot(rng: np.random.Generator, free: Bytes, clearance: float) -> tuple[int, int] | None:
    """A random point (x, y) at least `clearance` px from the nearest occupied pixel; None if there is none.

    Args:
        rng: Source of randomness.
        free: uint8, (height, width): non-zero where there is still room.
        clearance: Radius of the object to place, px.
    """
    # Half the resolution is accurate enough for placement, and four times as fast.
    coarse = np.ascontiguousarray(free[::2, ::2])
    room = np.flatnonzero(cv2.distanceTransform(coarse, cv2.DIST_L2, 3) > clearance / 2)
    if not len(room):
        return None
    row, column = divmod(int(room[int(rng.integers(len(room)))]), coarse.shape[1])
    return 2 * column, 2 * row


def draw_furniture(rng: np.random.Generator, pigment: Pigment, free: Bytes) -> None:
    """Draw glands, vessels and fat where `free` has room; removes the used room in place."""
    area = int(np.count_nonzero(free))
    for painter, per_area in ((_draw_gland, 11_000), (_draw_vessel, 60_000), (_draw_fat, 34_000)):
        for _ in range(int(rng.poisson(area / per_area))):
            radius = float(rng.uniform(9, 23))
            spot = find_spot(rng, free, radius + 1)
            if spot is None:
                continue
            painter(rng, pigment, np.array(spot, dtype=np.float64), radius)
            cv2.circle(free, spot, round(radius * 1.2) + 3, 0, cv2.FILLED)


def _draw_gland(rng: np.random.Generator, pigment: Pigment, centre: NDArray[np.float64], radius: float) -> None:
    """A duct: a rim of stroma, one to three rows of epithelium, a lumen."""
    squash = rng.uniform(0.65, 1)
    outline = blob_outline(rng, 2 * radius, 2 * radius * squash, wobble=0.10)
    turn = rng.uniform(0, np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    outline = np.asarray(outline @ rotation.T, dtype=np.float32)
    wall = min(rng.uniform(5.5, 8.5), radius * 0.6)
    lumen = max(0.12, 1 - wall / (radius * squash))
    _fill(pigment.eosin, outline * 1.10 + centre, rng.uniform(140, 165))
    _fill(pigment.eosin, outline + centre, rng.uniform(85, 115))
    _fill(pigment.haematoxylin, outline + centre, rng.uniform(16, 34))
    _fill(pigment.eosin, outline * lumen + centre, rng.choice([8, 20, 70]))
    _fill(pigment.haematoxylin, outline * lumen + centre, 2)
    size = rng.uniform(1.4, 2.6)
    girth = float(np.linalg.norm(np.diff(outline, axis=0, append=outline[:1]), axis=1).sum())
    for row in np.arange(0.92, lumen + 0.1, -2.5 * size / radius)[: int(rng.integers(1, 4))]:
        count = max(5, int(girth * row / (2.5 * size)))
        steps = (np.arange(count) + rng.uniform(-0.25, 0.25, count)) * len(outline) / count
        ring = outline[np.round(steps).astype(int) % len(outline)] * row
        along = np.degrees(np.arctan2(ring[:, 1], ring[:, 0])) + rng.normal(0, 12, count)
        axes = size * np.stack([rng.uniform(1.0, 1.5, count), rng.uniform(0.75, 1.0, count)], axis=1)
        draw_nuclei(pigment, ring + centre, axes, along, rng.uniform(0.5, 0.85, count))


def _draw_vessel(rng: np.random.Generator, pigment: Pigment, centre: NDArray[np.float64], radius: float) -> None:
    """A thin wall around packed red cells."""
    outline = blob_outline(rng, 1.6 * radius, 0.8 * radius)
    _fill(pigment.eosin, outline + centre, 40)
    _fill(pigment.haematoxylin, outline + centre, 3)
    inside = filled((pigment.eosin.shape[0], pigment.eosin.shape[1]), outline * 0.85 + np.float32(centre))
    for x, y in np.round(scatter(rng, inside, 3.6)).astype(int).tolist():
        cv2.circle(pigment.eosin, (x, y), 1, rng.uniform(200, 250), cv2.FILLED, cv2.LINE_AA)


def _draw_fat(rng: np.random.Generator, pigment: Pigment, centre: NDArray[np.float64], radius: float) -> None:
    """A cluster of empty vacuoles with thin pink walls."""
    for offset in rng.uniform(-0.6, 0.6, (int(rng.integers(2, 7)), 2)) * radius:
        outline = blob_outline(rng, *rng.uniform(7, 15, 2), wobble=0.06) + offset + centre
        _fill(pigment.eosin, outline, 6)
        _fill(pigment.haematoxylin, outline, 1)
        points = np.round(outline * 16).astype(np.int32)
        cv2.polylines(pigment.eosin, [points], True, 150, 1, cv2.LINE_AA, 4)


def _fill(layer: Bytes, outline: NDArray[np.floating], level: float) -> None:
    cv2.fillPoly(layer, [np.round(outline * 16).astype(np.int32)], float(level), cv2.LINE_AA, 4)
