"""Cuts patches from a picture."""

import numpy as np
import numpy.typing as npt

from doctogres.patches.views import Square, square_of
from doctogres.settings import PatchSettings
from doctogres.slides.scale import unit_of
from doctogres.slides.source import Picture, Rectangle, source_of


def crop(picture: Picture, square: Square, *, size: int) -> npt.NDArray[np.uint8]:
    """Cuts a square and resizes it; edge pixels are repeated beyond the picture's edge.

    Args:
        picture: the slide.
        square: left, top, side in pixels.
        size: side of the result in pixels.

    Returns:
        (size, size, 3).
    """
    left, top, side = square
    return source_of(picture).region(Rectangle(left, top, left + side, top + side), (size, size))


def cut_patches(
    picture: Picture, regions: npt.NDArray[np.int64], settings: PatchSettings, view: str = ""
) -> npt.NDArray[np.uint8]:
    """The pixels of the given regions: (regions, patch_size, patch_size, 3).

    Args:
        picture: the slide.
        regions: (regions, 5) as in `regions.find_patches`.
        settings: how to cut.
        view: what to cut; the settings' first view by default.
    """
    unit = unit_of(source_of(picture), settings.target_mpp)
    size, shown = settings.patch_size, view or settings.views[0]
    pixels = np.empty((len(regions), size, size, 3), np.uint8)
    for index, region in enumerate(regions):
        square = square_of(region, shown, settings)
        resampled = max(1, round(square[2] / unit))
        if unit > 1 and resampled < size:  # a finer slide must not show more in an enlarged patch than the model knows
            pixels[index] = crop(crop(picture, square, size=resampled), (0, 0, resampled), size=size)
        else:
            pixels[index] = crop(picture, square, size=size)
    return pixels
