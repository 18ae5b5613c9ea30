"""Squares over the regions of a mask: the tiles inside it, and the windows that show it with its surroundings."""

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

STEPS: Final = 28  # positions of a window along its own side
LEFT_OUT: Final = 0.02  # share of the lesions that may lie outside all windows
Mask = npt.NDArray[np.bool_]
Boxes = npt.NDArray[np.int64]


def tiles_of(mask: Mask, regions: Boxes, *, side: int) -> Boxes:
    """Squares that cover the regions: those that are at least half lesion, or a region's best one if none is.

    Each region's box is covered by the fewest squares in rows and columns, centred on it; they may exceed the picture.

    Args:
        mask: (height, width).
        regions: (regions, 5) as in `regions.mask_regions`.
        side: of a square in pixels.

    Returns:
        (tiles, 5): x, y, side, side and the lesion pixels inside.
    """
    sums = _summed(mask)
    chosen = []
    for x, y, width, height, _ in regions.tolist():
        across, down = -(-width // side), -(-height // side)
        lefts = x + (width - across * side) // 2 + side * np.arange(across)
        tops = y + (height - down * side) // 2 + side * np.arange(down)
        tops, lefts = (grid.ravel() for grid in np.meshgrid(tops, lefts, indexing="ij"))
        areas = _inside(sums, lefts, tops, side)
        keep = areas * 2 >= side * side
        keep[areas.argmax()] = True
        chosen.append(_boxes(lefts[keep], tops[keep], side, areas[keep]))
    tiles = np.concatenate(chosen) if chosen else np.empty((0, 5), np.int64)
    return np.unique(tiles, axis=0)  # regions that touch can share a tile


def windows_of(mask: Mask, *, side: int) -> Boxes:
    """Squares that together show all lesions but 2 % of their pixels, with whatever lies around them; the fullest first.

    Greedy covering (Chvatal, A greedy heuristic for the set-covering problem, 1979): the next window is the one with the most
    lesion pixels that no window shows yet and, among equals, the middle one. A window lies inside the picture wherever it
    fits there.

    Args:
        mask: (height, width).
        side: of a square in pixels.

    Returns:
        (windows, 5): x, y, side, side and the lesion pixels inside.
    """
    step = max(1, side // STEPS)
    cells = _cells(mask, step)
    rows, columns = (min(-(-side // step), length) for length in cells.shape)
    sums = _sums(cells, rows, columns)
    highest = sums.max(axis=1)  # of each row: a search of all sums for every window would take minutes on a large slide
    total = left_over = float(cells.sum(dtype=np.float64))
    lefts: list[int] = []
    tops: list[int] = []
    while total and (not lefts or left_over > LEFT_OUT * total):
        top, left = _fullest(sums, highest)
        left_over -= float(sums[top, left])
        cells[top : top + rows, left : left + columns] = 0
        first_row, first_column = max(0, top - rows + 1), max(0, left - columns + 1)
        around = cells[first_row : top + 2 * rows - 1, first_column : left + 2 * columns - 1]
        changed = _sums(around, rows, columns)
        around_rows = slice(first_row, first_row + len(changed))
        sums[around_rows, first_column : first_column + changed.shape[1]] = changed
        highest[around_rows] = sums[around_rows].max(axis=1)
        tops.append(_moved(top * step, side, mask.shape[0]))
        lefts.append(_moved(left * step, side, mask.shape[1]))
    if not lefts:
        return np.empty((0, 5), np.int64)
    left_edges, top_edges = np.array(lefts), np.array(tops)
    return _boxes(left_edges, top_edges, side, _inside(_summed(mask), left_edges, top_edges, side))


def _cells(mask: Mask, step: int) -> npt.NDArray[np.float32]:
    """Lesion pixels in squares of `step` pixels, (height / step, width / step), rounded up."""
    height, width = mask.shape
    padded = np.zeros((-(-height // step) * step, -(-width // step) * step), np.uint8)
    padded[:height, :width] = mask
    blocks = padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step)
    return np.asarray(blocks.sum(axis=(1, 3), dtype=np.float32))


def _sums(cells: npt.NDArray[np.float32], rows: int, columns: int) -> npt.NDArray[np.float32]:
    """The sum of every window of so many cells, by its top and left; whole numbers, which stay exact below 2**24."""
    size, edge = (columns, rows), cv2.BORDER_CONSTANT
    sums = cv2.boxFilter(cells, cv2.CV_32F, size, anchor=(0, 0), normalize=False, borderType=edge)
    return np.array(sums[: len(cells) - rows + 1, : cells.shape[1] - columns + 1])


def _fullest(sums: npt.NDArray[np.float32], highest: npt.NDArray[np.float32]) -> tuple[int, int]:
    """Top and left, in cells, of the window with the highest sum; among equals the one nearest to their middle."""
    least = highest.max() - np.float32(0.5)
    rows = np.flatnonzero(highest >= least)
    equals = np.argwhere(sums[rows] >= least)
    equals[:, 0] = rows[equals[:, 0]]
    nearest = np.square(equals - equals.mean(axis=0)).sum(axis=1).argmin()
    top, left = equals[nearest].tolist()
    return top, left


def _moved(start: int, side: int, length: int) -> int:
    """The start of a side that is moved into 0..length, or centred on it if it is longer."""
    return (length - side) // 2 if side > length else min(start, length - side)


def _boxes(lefts: Boxes, tops: Boxes, side: int, areas: Boxes) -> Boxes:
    sides = np.full(len(lefts), side)
    return np.column_stack([lefts, tops, sides, sides, areas]).astype(np.int64)


def _summed(mask: Mask) -> npt.NDArray[Any]:
    """The summed-area table, (height + 1, width + 1)."""
    return np.asarray(cv2.integral(np.ascontiguousarray(mask).view(np.uint8)))


def _inside(sums: npt.NDArray[Any], lefts: Boxes, tops: Boxes, side: int) -> Boxes:
    """Lesion pixels of squares, from the summed-area table."""
    height, width = sums.shape
    left, right = (np.clip(edge, 0, width - 1) for edge in (lefts, lefts + side))
    top, bottom = (np.clip(edge, 0, height - 1) for edge in (tops, tops + side))
    corners = (sums[rows, columns].astype(np.int64) for rows, columns in
               ((bottom, right), (top, right), (bottom, left), (top, left)))  # fmt: skip
    whole, above, before, twice = corners
    return np.asarray(whole - above - before + twice)
