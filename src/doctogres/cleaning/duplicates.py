"""Clusters of near-copies of a slide: turned, flipped, saved again, or with a splat added.

A slide is seen twice, as the whole frame and as the box of its tissue, reduced to a small grey square each. The signs
of the differences along a square's rows and columns (a difference hash) are looked up in tables, line by line, for all
eight turns and flips: a splat spoils some lines and leaves the others, so a copy still meets its original, and the
work grows with the number of meetings, not with the square of the cohort. Every meeting is then checked on the grey
values themselves, on tissue only, because the glass of all slides is alike.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE: Final = 48  # of the small grey squares
HASH_SIDE: Final = 16  # SIDE is a multiple, so that turning and reducing commute
MIN_STEP: Final = 3  # grey levels; smaller differences are noise and count as none
MIN_SIGNS: Final = 5  # rises and falls that a line needs to be looked up; glass has none
MIN_LINES: Final = 2  # that two slides share before they are compared; a single one is often chance
MAX_MEETINGS: Final = 64  # slides under one key, beyond which the key says nothing
MIN_CORRELATION: Final = 0.85
MIN_OVERLAP: Final = 0.75  # intersection over union of the two tissue areas
MIN_PIXELS: Final = 24


@dataclass(frozen=True)
class Fingerprint:
    """A slide reduced for comparison; every array is (2, SIDE, SIDE): whole frame, tissue box.

    Attributes:
        grey: grey values, splats painted over with glass.
        tissue: true on tissue.
        hidden: true where a splat hides what is below.
    """

    grey: NDArray[np.uint8]
    tissue: NDArray[np.bool_]
    hidden: NDArray[np.bool_]


def fingerprint(
    small: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    glass: NDArray[np.float64],
    splat: NDArray[np.bool_] | None = None,
) -> Fingerprint:
    """The fingerprint of a slide's working copy (height, width, 3), its silhouette, glass colour and splats."""
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    hidden = np.zeros(inside.shape, dtype=np.uint8) if splat is None else splat.astype(np.uint8)
    grey = np.where(hidden.astype(np.bool_), np.uint8(round(float(glass.mean()))), grey)
    tissue = inside.astype(np.uint8) & (1 - hidden)
    frames = [(slice(None), slice(None)), _box(tissue)]
    return Fingerprint(
        np.stack([_reduce(grey[frame]) for frame in frames]),
        np.stack([_reduce(tissue[frame] * np.uint8(255)) > 127 for frame in frames]),
        np.stack([_reduce(hidden[frame] * np.uint8(255)) > 0 for frame in frames]),
    )


def near_duplicates(prints: Sequence[Fingerprint]) -> list[tuple[int, ...]]:
    """The clusters of two or more near-copies, as positions in `prints`, each sorted."""
    parent = list(range(len(prints)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for one, other, view, turn in _meetings(prints).tolist():
        if root(one) != root(other) and _are_copies(prints[one], prints[other], view, turn):
            parent[max(root(one), root(other))] = min(root(one), root(other))
    clusters: dict[int, list[int]] = defaultdict(list)
    for index in range(len(prints)):
        clusters[root(index)].append(index)
    return [tuple(cluster) for cluster in clusters.values() if len(cluster) > 1]


def similarity(one: Fingerprint, other: Fingerprint, view: int, turn: int) -> tuple[float, float]:
    """Correlation of the grey values on common tissue, and overlap of the two tissues, after turning `other`."""
    tissue, hidden = _turned(other.tissue[view], turn), _turned(other.hidden[view], turn)
    seen = ~(one.hidden[view] | hidden)
    either = (one.tissue[view] | tissue) & seen
    both = one.tissue[view] & tissue & seen
    if both.sum() < MIN_PIXELS:
        return 0.0, 0.0
    first = one.grey[view][both].astype(np.float32)
    second = _turned(other.grey[view], turn)[both].astype(np.float32)
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return (float((first * second).sum()) / norm if norm else 0.0), float(both.sum() / either.sum())


def _are_copies(one: Fingerprint, other: Fingerprint, view: int, turn: int) -> bool:
    correlation, overlap = similarity(one, other, view, turn)
    return correlation >= MIN_CORRELATION and overlap >= MIN_OVERLAP


def _meetings(prints: Sequence[Fingerprint]) -> NDArray[np.int64]:
    """Pairs that share lines once the second is turned: (meetings, 4) of one, other, view, turn; one before other."""
    if len(prints) < 2:
        return np.empty((0, 4), dtype=np.int64)
    forward, backward, shown = _line_codes(np.stack([print_.grey for print_ in prints]))  # (slides, 2, lines)
    slides = np.arange(len(prints))[:, None, None]
    place = np.arange(2)[:, None] * 2 * HASH_SIDE + np.arange(2 * HASH_SIDE)  # (2, lines): one table per view and line
    first = place * np.int64(3 ** (HASH_SIDE - 1))
    stored = np.sort(((first + forward) * len(prints) + slides)[shown])
    met = []
    for turn, (line, reversed_) in enumerate(_turned_lines()):
        codes = np.where(reversed_, backward[..., line], forward[..., line])
        asked = shown[..., line]
        keys = ((first + codes) * len(prints) + slides)[asked]
        view = np.broadcast_to(np.arange(2)[:, None], asked.shape)[asked]
        position = np.searchsorted(stored, keys)  # where the slide itself would stand among those with its key
        for back in range(1, MAX_MEETINGS + 1):
            candidate = stored[np.maximum(position - back, 0)]
            same = (position >= back) & (candidate // len(prints) == keys // len(prints))
            if not same.any():
                break
            keys, view, position, candidate = keys[same], view[same], position[same], candidate[same]
            one, other = candidate % len(prints), keys % len(prints)
            met.append(np.stack([one, other, view, np.full_like(one, turn)], axis=1))
    if not met:
        return np.empty((0, 4), dtype=np.int64)
    meetings, lines = np.unique(np.concatenate(met), axis=0, return_counts=True)
    return np.asarray(meetings[lines >= MIN_LINES])


def _line_codes(
    grey: NDArray[np.uint8],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """The signs of the steps along every row, then every column, as numbers read forward and backward.

    Returns:
        Two arrays of numbers and whether the line shows enough to be looked up, (slides, 2, 2 * HASH_SIDE) each.
    """
    block = SIDE // HASH_SIDE
    reduced = grey.reshape(*grey.shape[:2], HASH_SIDE, block, HASH_SIDE, block).mean(axis=(3, 5), dtype=np.float32)
    lines = np.concatenate([reduced, reduced.swapaxes(2, 3)], axis=2)  # (slides, 2, 2 * HASH_SIDE, HASH_SIDE)
    steps = np.diff(lines, axis=3)
    signs = (steps > MIN_STEP).astype(np.int64) - (steps < -MIN_STEP)
    weights = 3 ** np.arange(HASH_SIDE - 1)
    shown = np.count_nonzero(signs, axis=3) >= MIN_SIGNS
    return (signs + 1) @ weights, (1 - signs[..., ::-1]) @ weights, shown


def _turned_lines() -> Iterator[tuple[NDArray[np.intp], NDArray[np.bool_]]]:
    """For each of the eight turns: which line of the unturned square each line is, and whether it is reversed."""
    cells = np.arange(HASH_SIDE**2).reshape(HASH_SIDE, HASH_SIDE)
    ends = np.concatenate([cells[:, [0, -1]], cells[[0, -1]].T])  # (lines, 2): the first and last cell of each
    for turn in range(8):
        turned = _turned(cells, turn)
        wanted = np.concatenate([turned[:, [0, -1]], turned[[0, -1]].T])
        forward = (wanted[:, None] == ends).all(axis=2)
        backward = (wanted[:, None, ::-1] == ends).all(axis=2)
        yield (forward | backward).argmax(axis=1), backward.any(axis=1)


def _turned(square: NDArray[np.generic], turn: int) -> NDArray[np.generic]:
    """One of the eight turns and flips; turn 0 leaves the square as it is."""
    turned = np.rot90(square, turn % 4)
    return turned[:, ::-1] if turn >= 4 else turned


def _box(tissue: NDArray[np.uint8]) -> tuple[slice, slice]:
    x, y, width, height = cv2.boundingRect(tissue)
    if width == 0 or height == 0:
        return slice(None), slice(None)
    return slice(y, y + height), slice(x, x + width)


def _reduce(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    contiguous = np.ascontiguousarray(array, dtype=np.uint8)
    return np.asarray(cv2.resize(contiguous, (SIDE, SIDE), interpolation=cv2.INTER_AREA), dtype=np.uint8)
