"""Between outlines and masks: which pixels lie inside of outlines, and the outlines of a mask's regions."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import shapely
from shapely import affinity
from shapely.geometry import MultiPolygon, Polygon, box

from doctogres.slides.geojson import Outline, OutlineError, Shape

BEYOND: Final = 1.0  # pixels by which an outline at the border of the picture may lie outside, rounded by who drew it
BAND: Final = 1 << 22  # pixels that are filled at a time
FINEST: Final = 4  # crossings of an outline with a row per pixel of the picture; more than the pixels can show
FEW: Final = 1 << 20  # pixels that a small picture may count as


def filled(
    outlines: Sequence[Outline], size: tuple[int, int], name: str, *, left: float = 0, top: float = 0, scale: float = 1
) -> npt.NDArray[np.bool_]:
    """The pixels whose centres lie inside of an outline, (height, width).

    Args:
        outlines: in pixels of the full picture.
        size: width and height of the mask.
        name: of the outlines' file, for messages.
        left: of the mask's region in the full picture.
        top: of the same.
        scale: pixels of the mask per pixel of the full picture.

    Raises:
        OutlineError: an outline is finer than the pixels.
    """
    width, height = size
    mask = np.zeros((height, width), np.bool_)
    rings = [
        np.asarray(ring.coords)[:, :2]
        for outline in outlines
        for polygon in _polygons(shapely.orient_polygons(outline.shape))
        for ring in (polygon.exterior, *polygon.interiors)
    ]
    if rings:
        edges = np.concatenate([np.stack([ring[:-1], ring[1:]], axis=1) for ring in rings])
        _fill(mask, (edges - [left, top]) * scale, name)
    return mask


def lies_inside(outlines: Sequence[Outline], size: tuple[int, int]) -> bool:
    """Whether all outlines lie in a picture of this width and height, or beyond it by a pixel at most."""
    return not any(_leaves(outline.shape, size) for outline in outlines)


def check_inside(outlines: Sequence[Outline], size: tuple[int, int], name: str) -> None:
    """Refuses outlines that leave a picture of this width and height by more than a pixel.

    Raises:
        OutlineError: one of them does.
    """
    for outline in outlines:
        if _leaves(outline.shape, size):
            x, y, right, bottom = outline.shape.bounds
            raise OutlineError(
                f"{name} has an outline from {x:.0f}, {y:.0f} to {right:.0f}, {bottom:.0f}, outside the picture of "
                f"{size[0]} x {size[1]} pixels; give the outlines of this picture, at its full resolution"
            )


def _leaves(shape: Shape, size: tuple[int, int]) -> bool:
    x, y, right, bottom = shape.bounds
    return min(x, y) < -BEYOND or right > size[0] + BEYOND or bottom > size[1] + BEYOND


def region_shape(mask: npt.NDArray[np.bool_], *, x: int = 0, y: int = 0) -> Shape:
    """The outline of what a mask marks, along the edges of its pixels: its area is their number.

    Args:
        mask: (height, width) with at least one marked pixel.
        x: of the mask in the full picture.
        y: of the same.
    """
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (rows, starts), (_, ends) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    runs = shapely.box(starts + x, rows + y, ends + x, rows + y + 1)
    shape = shapely.simplify(shapely.union_all(runs), 0)
    assert isinstance(shape, Polygon | MultiPolygon)  # runs have an area
    return shape


def scaled(shape: Shape, factor: float) -> Shape:
    """A shape with all coordinates times a factor."""
    return shape if factor == 1 else affinity.scale(shape, factor, factor, origin=(0, 0))


def box_shape(x: int, y: int, width: int, height: int) -> Shape:
    """The outline of a box."""
    return box(x, y, x + width, y + height)


def _polygons(shape: Shape) -> Sequence[Polygon]:
    return [shape] if isinstance(shape, Polygon) else list(shape.geoms)


def _fill(mask: npt.NDArray[np.bool_], edges: npt.NDArray[np.float64], name: str) -> None:
    """Marks, in place, the pixels that polygons wind around (nonzero rule), in one pass for any number of polygons.

    An edge crosses the rows whose centres it spans, and there changes the winding number of all pixels whose centres lie
    to its right: by one upwards, by minus one downwards. Shells run one way and holes the other, so that the number is
    that of the polygons which hold a pixel.

    Args:
        mask: (height, width).
        edges: (edges, 2, 2): x and y of both ends.
        name: of the outlines' file.
    """
    height, width = mask.shape
    upwards = edges[:, 0, 1] > edges[:, 1, 1]
    edges = np.where(upwards[:, None, None], edges[:, ::-1], edges)
    spans = np.clip(np.ceil(edges[:, :, 1] - 0.5), 0, height).astype(np.int64)  # first row, and one past the last
    if (spans[:, 1] - spans[:, 0]).sum() > FINEST * max(mask.size, FEW):
        raise OutlineError(
            f"{name} has outlines that are finer than the picture's pixels, or that lie on each other many times; simplify them"
        )
    rows_at_once = max(1, BAND // (width + 1))
    for start in range(int(spans[:, 0].min()), int(spans[:, 1].max()), rows_at_once):
        end = min(start + rows_at_once, height)
        first, last = np.clip(spans, start, end).T
        counts = last - first
        crossing = np.repeat(np.arange(len(edges)), counts)
        rows = first[crossing] + np.arange(len(crossing)) - np.repeat(np.cumsum(counts) - counts, counts)
        (x, y), (other_x, other_y) = edges[crossing, 0].T, edges[crossing, 1].T
        at = x + (rows + 0.5 - y) * (other_x - x) / (other_y - y)
        columns = np.clip(np.ceil(at - 0.5), 0, width).astype(np.int64)
        change = np.zeros((end - start, width + 1), np.int32)
        np.add.at(change, (rows - start, columns), np.where(upwards[crossing], 1, -1))
        mask[start:end] = np.cumsum(change, axis=1)[:, :-1] > 0
