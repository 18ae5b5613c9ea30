"""The lesions: their regions (the mask) and the appearance of their cells (the label)."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from doctogres.synthetic.cells import SUBTYPE_LOOKS, CellLook, blended_look
from doctogres.synthetic.noise import Bytes, Flags, blob_outline, filled
from doctogres.synthetic.tissue import find_spot

SMALLEST_REGION: Final = 200  # px; smaller spots of the mask are specks
REGION_SIDE: Final = (22.0, 120.0)  # px
LARGEST_SHARE: Final = 0.062
SMALLEST_SHARE: Final = 0.006
# How far a slide, and then each of its regions, deviates from its subtype: mean share of another subtype's look.
SLIDE_STRAY: Final = 0.22
REGION_STRAY: Final = 0.18


def place_regions(rng: np.random.Generator, free: Bytes) -> list[Flags]:
    """Four to twelve separate irregular regions inside the tissue.

    Args:
        rng: Source of randomness.
        free: uint8, (height, width): non-zero inside the tissue; the regions are removed from it in place.

    Returns:
        One bool array (height, width) per region, each connected and of at least `SMALLEST_REGION` px.
    """
    count = int(np.clip(rng.poisson(6.2) + 1, 4, 12))
    budget = LARGEST_SHARE * free.size
    regions: list[Flags] = []
    covered = 0
    for attempt in range(12 * count):
        if len(regions) == count and covered >= SMALLEST_SHARE * free.size:
            break
        side = float(np.clip(44 * np.exp(rng.normal(0, 0.75)), *REGION_SIDE))
        # A slide without room for large regions gets small ones instead.
        region = _place_region(rng, free, side if attempt < 6 * count else REGION_SIDE[0])
        if region is None or covered + region.sum() > budget or len(regions) == 12:
            continue
        regions.append(region)
        covered += int(region.sum())
        free[cv2.dilate(region.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0] = 0
    return regions


def _place_region(rng: np.random.Generator, free: Bytes, side: float) -> Flags | None:
    """One blob of about `side` px, clipped to the tissue; None if it does not fit."""
    spot = find_spot(rng, free, 0.30 * side)
    if spot is None:
        return None
    stretch = np.exp(rng.normal(0.08, 0.18))
    width, height = np.minimum((side * stretch, side / stretch), REGION_SIDE[1])
    outline = blob_outline(rng, width, height) + np.array(spot, dtype=np.float32)
    blob = filled((free.shape[0], free.shape[1]), outline) & (free > 0)
    x, y, columns, rows = cv2.boundingRect(blob.astype(np.uint8))
    if not columns:
        return None
    window = np.s_[y : y + rows, x : x + columns]
    _, names, stats, _ = cv2.connectedComponentsWithStats(blob[window].astype(np.uint8), connectivity=4)
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    blob[window] = names == largest
    return blob if blob.sum() >= SMALLEST_REGION else None


def lesion_mask(rng: np.random.Generator, shape: tuple[int, int], regions: list[Flags]) -> Bytes:
    """The annotator's mask: the regions and one to eight stray specks, some on glass: uint8, `shape`, 0 or 255."""
    mask = np.zeros(shape, dtype=np.uint8)
    for region in regions:
        mask[region] = 255
    for _ in range(int(rng.integers(1, 9))):
        away = np.asarray(cv2.dilate(mask, np.ones((7, 7), np.uint8)) == 0, dtype=np.uint8)
        side = float(rng.uniform(1, 13))
        spot = find_spot(rng, away, side)
        if spot is not None:
            mask[filled(shape, blob_outline(rng, side, side) + np.array(spot, dtype=np.float32))] = 255
    return mask


def slide_mixture(rng: np.random.Generator, label: str) -> NDArray[np.float64]:
    """The share of each subtype's look in a slide of this label: float64, (classes,), sums to 1.

    Some slides look more like another subtype than their own: no classifier can be right about all of them.
    """
    pure = np.array([name == label for name in SUBTYPE_LOOKS], dtype=np.float64)
    return _strayed(rng, pure, SLIDE_STRAY)


def region_look(rng: np.random.Generator, mixture: NDArray[np.float64]) -> CellLook:
    """The look of one region of a slide."""
    return blended_look(_strayed(rng, mixture, REGION_STRAY))


def foreign_look(rng: np.random.Generator) -> CellLook:
    """The look of a nest outside the mask: a random subtype's, independent of the slide's label."""
    start = np.eye(len(SUBTYPE_LOOKS))[int(rng.integers(len(SUBTYPE_LOOKS)))]
    return blended_look(_strayed(rng, start, SLIDE_STRAY))


def _strayed(rng: np.random.Generator, mixture: NDArray[np.float64], mean_share: float) -> NDArray[np.float64]:
    """Move a mixture towards one random subtype by a random share of mean `mean_share`."""
    share = rng.beta(4 * mean_share, 4 * (1 - mean_share))
    other = np.eye(len(mixture))[int(rng.integers(len(mixture)))]
    return np.asarray((1 - share) * mixture + share * other, dtype=np.float64)
