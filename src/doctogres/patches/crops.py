"""Cuts patches from a picture."""

import cv2
import numpy as np
import numpy.typing as npt

from doctogres.patches.views import Square, square_of
from doctogres.settings import PatchSettings


def crop(rgb: npt.NDArray[np.uint8], square: Square, *, size: int) -> npt.NDArray[np.uint8]:
    """Cuts a square and resizes it; edge pixels are repeated beyond the picture's edge.

    Args:
        rgb: (height, width, 3).
        square: left, top, side in pixels.
        size: side of the result in pixels.

    Returns:
        (size, size, 3).
    """
    left, top, side = square
    height, width = rgb.shape[:2]
    inside = rgb[max(top, 0) : min(top + side, height), max(left, 0) : min(left + side, width)]
    missing = (max(-top, 0), max(top + side - height, 0), max(-left, 0), max(left + side - width, 0))
    if any(missing):
        inside = np.asarray(cv2.copyMakeBorder(inside, *missing, borderType=cv2.BORDER_REPLICATE), np.uint8)
    # Area averaging is the only OpenCV filter that does not alias when shrinking.
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(inside, (size, size), interpolation=interpolation), dtype=np.uint8)


def cut_patches(
    rgb: npt.NDArray[np.uint8], regions: npt.NDArray[np.int64], settings: PatchSettings, view: str = ""
) -> npt.NDArray[np.uint8]:
    """The pixels of the given regions: (regions, patch_size, patch_size, 3).

    Args:
        rgb: (height, width, 3).
        regions: (regions, 5) as in `regions.find_patches`.
        settings: how to cut.
        view: what to cut; the settings' first view by default.
    """
    size, shown = settings.patch_size, view or settings.views[0]
    pixels = np.empty((len(regions), size, size, 3), np.uint8)
    for index, region in enumerate(regions):
        pixels[index] = crop(rgb, square_of(region, shown, settings), size=size)
    return pixels
