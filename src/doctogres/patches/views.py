"""What is cut from a slide: the view of a patch.

| view | patches | cut |
|---|---|---|
| regions | the lesion regions | the tight box, with the margin |
| window224 | squares of 224 px that together show all lesions | the square, with the surroundings |
| tiles128 | squares of 128 px inside the mask | the square |
| whole | the picture | the picture |
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from doctogres.settings import PatchSettings

REGIONS: Final = "regions"
WHOLE: Final = "whole"
Square = tuple[int, int, int]  # left, top, side in pixels


def is_window(view: str) -> bool:
    """Whether a view is a window of some size."""
    return view.startswith("window")


def size_of(view: str) -> int:
    """The side in pixels of a window or a tile."""
    return int("".join(character for character in view if character.isdigit()))


def square_of(box: npt.NDArray[np.int64], view: str, settings: PatchSettings) -> Square:
    """The square of a patch in this view; it may exceed the picture.

    Args:
        box: x, y, width, height, as in `regions.find_patches`.
        view: what to cut.
        settings: how to cut.
    """
    return crop_box(box, margin=settings.margin if view == REGIONS else 0.0)


def crop_box(box: npt.NDArray[np.int64], *, margin: float) -> Square:
    """The square around a box: left, top, side in pixels; it may exceed the picture.

    Args:
        box: x, y, width, height.
        margin: context on each side, as a share of the longer side.
    """
    x, y, width, height = (int(value) for value in box[:4])
    side = max(1, round(max(width, height) * (1 + 2 * margin)))
    return x + (width - side) // 2, y + (height - side) // 2, side
