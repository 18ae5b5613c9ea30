"""Mask -> connected regions -> square boxes -> crops. Pure geometry on arrays; boxes are x, y, width, height in pixels."""

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from doctogres.settings import PatchSettings
from doctogres.slides.reasons import Reason

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


def crop_box(box: npt.NDArray[np.int64], *, margin: float) -> tuple[int, int, int]:
    """The square around a region's box that becomes the patch: left, top, side in pixels; it may exceed the picture."""
    x, y, width, height = (int(value) for value in box[:4])
    side = max(1, round(max(width, height) * (1 + 2 * margin)))
    return x + (width - side) // 2, y + (height - side) // 2, side


def crop(rgb: npt.NDArray[np.uint8], box: npt.NDArray[np.int64], *, size: int, margin: float) -> npt.NDArray[np.uint8]:
    """Cuts the square around `box` and resizes it; edge pixels are repeated beyond the picture's edge.

    Args:
        rgb: (height, width, 3).
        box: x, y, width, height of the region.
        size: side of the result in pixels.
        margin: context on each side of the region, as a share of its longer side.

    Returns:
        (size, size, 3).
    """
    left, top, side = crop_box(box, margin=margin)
    height, width = rgb.shape[:2]
    inside = rgb[max(top, 0) : min(top + side, height), max(left, 0) : min(left + side, width)]
    missing = (max(-top, 0), max(top + side - height, 0), max(-left, 0), max(left + side - width, 0))
    if any(missing):
        inside = np.asarray(cv2.copyMakeBorder(inside, *missing, borderType=cv2.BORDER_REPLICATE), np.uint8)
    # Area averaging is the only OpenCV filter that does not alias when shrinking.
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(inside, (size, size), interpolation=interpolation), dtype=np.uint8)


def whole_picture(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The whole picture as a single region, for the whole-picture baseline: (1, 5)."""
    height, width = mask.shape
    return np.array([[0, 0, width, height, int(mask.sum())]], dtype=np.int64)


def find_patches(
    mask: npt.NDArray[np.bool_], settings: PatchSettings
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], list[str]]:
    """All regions of a slide, which of them become patches, and the reasons; used by both training and serving.

    Returns:
        regions (regions, 5) as in `mask_regions`, kept (regions,), reasons (regions,).
    """
    if settings.patching == "whole":
        return whole_picture(mask), np.array([True]), [""]
    regions = mask_regions(mask)
    kept, reasons = select_regions(regions, min_area=settings.min_area)
    return regions, kept, reasons


def cut_patches(
    rgb: npt.NDArray[np.uint8], regions: npt.NDArray[np.int64], settings: PatchSettings
) -> npt.NDArray[np.uint8]:
    """The pixels of the given regions: (regions, patch_size, patch_size, 3)."""
    margin = 0.0 if settings.patching == "whole" else settings.margin
    size = settings.patch_size
    pixels = np.empty((len(regions), size, size, 3), np.uint8)
    for index, region in enumerate(regions):
        pixels[index] = crop(rgb, region, size=size, margin=margin)
    return pixels
