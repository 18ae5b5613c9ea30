"""Mask -> connected regions -> boxes. Pure geometry on arrays; boxes are x, y, width, height in pixels."""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from doctogres.patches.squares import tiles_of, windows_of
from doctogres.patches.views import REGIONS, WHOLE, is_window, size_of
from doctogres.settings import PatchSettings
from doctogres.slides.reasons import Reason
from doctogres.slides.scale import Scale

REGION_FIELDS: Final = ("x", "y", "width", "height", "area")


def mask_regions(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The 8-connected regions of a mask, sorted by their boxes' top-left corners (row first), then their first pixels.

    Following the borders takes a tenth of the time of labelling every pixel. The polygon through the centres of the
    border pixels gives the pixel count by Pick's theorem: area = inside + on the border / 2 - 1.

    Args:
        mask: (height, width).

    Returns:
        (regions, 5): x, y, width, height of the tight box and the area in pixels.
    """
    borders, tree = cv2.findContours(np.ascontiguousarray(mask).view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not borders:
        return np.empty((0, 5), np.int64)
    lengths = np.array([len(border) for border in borders])
    ends = lengths.cumsum()
    starts = ends - lengths
    points = np.concatenate(borders)[:, 0].astype(np.int64)  # (points, 2), x then y
    following = np.arange(1, len(points) + 1)
    following[ends - 1] = starts
    crossed = points[:, 0] * points[following, 1] - points[following, 0] * points[:, 1]
    doubled = np.abs(np.add.reduceat(crossed, starts))
    steps = np.where(lengths > 1, lengths, 0)
    outer = tree[0, :, 3] < 0  # the others lie around a hole in their parent's region
    pixels = np.where(outer, doubled + steps + 2, steps - doubled - 2) // 2
    np.add.at(pixels, tree[0, ~outer, 3], pixels[~outer])
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    regions = np.column_stack([low, high - low + 1, pixels])[outer]
    first = points[starts[outer]]
    return regions[np.lexsort((first[:, 0], first[:, 1], regions[:, 0], regions[:, 1]))]


def select_regions(regions: npt.NDArray[np.int64], *, min_area: int) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Which regions become patches, and the reason for each one left out (or kept despite its size).

    Regions under `min_area` are left out (the challenge's last improvement). If a slide has only such regions, the
    largest one represents the slide, because every slide needs a prediction, and its reason says so.
    """
    areas = regions[:, 4]
    kept = areas >= min_area
    reasons = [
        "" if keep else Reason.SMALL_REGION.because(area=area, min_area=min_area)
        for keep, area in zip(kept, areas, strict=True)
    ]
    if len(regions) and not kept.any():
        largest = int(areas.argmax())
        kept[largest] = True
        reasons[largest] = Reason.LARGEST_REGION.because(area=areas[largest], min_area=min_area)
    return kept, reasons


def whole_picture(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The whole picture as a single region in the mask's pixels, for the whole-picture baseline: (1, 5)."""
    height, width = mask.shape
    return np.array([[0, 0, width, height, int(mask.sum())]], dtype=np.int64)


def find_patches(
    mask: npt.NDArray[np.bool_], settings: PatchSettings, view: str = "", scale: Scale | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], list[str]]:
    """All patches of a slide in a view, which of them are kept, and the reasons; used by both training and serving.

    Windows and tiles are placed over the regions that are kept.

    Args:
        mask: (height, width).
        settings: how to cut.
        view: of `PatchSettings.views`, the first by default.
        scale: of the slide, where a pixel of the mask is not one of the slide and of the model.

    Returns:
        patches (patches, 5) as in `mask_regions`, in the slide's pixels, kept (patches,), reasons (patches,).
    """
    shown = view or settings.views[0]
    scale = scale or Scale(mask.shape[::-1])
    if shown == WHOLE:
        return scale.boxes(whole_picture(mask)), np.array([True]), [""]
    regions = mask_regions(mask)
    kept, reasons = select_regions(scale.at_model(regions), min_area=settings.min_area)
    if shown == REGIONS:
        return scale.boxes(regions), kept, reasons
    lesions = _without_small(mask, regions[kept]) if not kept.all() else mask
    side, of_mask = size_of(shown), max(1, round(size_of(shown) / scale.reduction))
    squares = windows_of(lesions, side=of_mask) if is_window(shown) else tiles_of(lesions, regions[kept], side=of_mask)
    squares = scale.squares(squares, round(side * scale.unit), inside=is_window(shown))
    reason = next((text for text, keep in zip(reasons, kept, strict=True) if keep and text), "")  # only specks
    return squares, np.ones(len(squares), bool), [reason] * len(squares)


def _without_small(mask: npt.NDArray[np.bool_], kept: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """The mask with only these regions."""
    _, labels, found, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(mask).view(np.uint8), connectivity=8)
    boxes = {tuple(region) for region in kept.tolist()}
    inside = np.array([tuple(region) in boxes for region in found.tolist()])
    inside[0] = False  # the background
    return np.asarray(inside[labels])
