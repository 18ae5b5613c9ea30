"""For slides without a mask: the tissue, cut into tiles the size of the training regions."""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from doctogres.slides.source import Picture
from doctogres.slides.tissue import glass_colour, judge_colour, silhouette, working_copy

TISSUE_IN_TILE: Final = 0.5  # share of a tile that must be tissue
MAX_TILES: Final = 200  # classified per slide; the challenge's slides have at most 55 regions
BLUR: Final = 5  # pixels of the reduced copy, against pixel noise


def tissue_mask(picture: Picture) -> npt.NDArray[np.bool_]:
    """True on stained tissue, at the reduced size of `tissue.working_copy`.

    Tissue is whatever lies on the glass and is more saturated than Otsu's threshold, as in CLAM (Lu et al., Data-efficient
    and weakly supervised computational pathology on whole-slide images, 2021). A cartoon has no tissue at all.

    Args:
        picture: the slide.
    """
    small = working_copy(picture)
    glass = glass_colour(small)
    inside = silhouette(small, glass)
    if judge_colour(small, inside, glass).kind == "cartoon":
        return np.zeros_like(inside)
    saturation = cv2.medianBlur(np.ascontiguousarray(cv2.cvtColor(small, cv2.COLOR_RGB2HSV)[..., 1]), BLUR)
    _, stained = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return inside & (stained > 0)


def tissue_tiles(
    tissue: npt.NDArray[np.bool_], size: tuple[int, int], *, side: int, min_area: int, thin: bool = False
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """The tiles of a regular grid that touch tissue, in reading order, and which of them are classified.

    Tiles with less than half their area or less than `min_area` pixels of tissue are left out; of the others, at most 200
    are classified, evenly spread.

    Args:
        tissue: `tissue_mask` of the slide.
        size: width and height of the slide in pixels.
        side: side of a tile in pixels.
        min_area: minimum tissue in pixels.
        thin: where no tile has as much, as on a needle biopsy, take those with at least half the tissue of the fullest.

    Returns:
        tiles (tiles, 5) as in `regions.mask_regions`, with the tissue's area; chosen (tiles,).
    """
    width, height = size
    side = min(side, height, width)
    across, down = width // side, height // side
    shares = cv2.resize(tissue.astype(np.float32), (across, down), interpolation=cv2.INTER_AREA)
    rows, columns = np.nonzero(shares > 0)
    share = np.minimum(shares[rows, columns], 1)  # a sum of float32 weights may exceed 1 by rounding
    areas = np.rint(share * side**2).astype(np.int64)
    sides = np.full_like(areas, side)
    tiles = np.column_stack([columns * width // across, rows * height // down, sides, sides, areas])
    chosen = (share >= TISSUE_IN_TILE) & (areas >= min_area)
    if thin and not chosen.any() and len(areas):
        chosen = share >= share.max() / 2
    full = np.flatnonzero(chosen)
    if len(full) > MAX_TILES:
        chosen[:] = False
        chosen[full[np.linspace(0, len(full) - 1, MAX_TILES).round().astype(np.int64)]] = True
    return tiles, chosen
