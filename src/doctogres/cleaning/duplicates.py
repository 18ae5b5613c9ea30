"""Clusters of near-copies of a slide: turned, flipped, scaled, saved again, or with a splat added.

A slide is seen twice, as the whole frame and as the box of its tissue, and hashed with PDQ (Meta 2019). PDQ keeps the
signs of a cosine transform, so the hashes of all eight turns and flips follow from one: a flip changes the sign of
every other row or column, a quarter turn transposes besides. Slides meet by bit sampling (Indyk & Motwani 1998): equal in a few bits
drawn at random, in any of many draws, so that the work grows with the number of meetings and not with the square of
the cohort. Who meets is compared on all bits and then on the grey values, on tissue only, because the glass of all
slides is alike.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import pdqhash
from numpy.typing import NDArray

from doctogres.slides.tissue import halved, halved_mask
from doctogres.slides.turns import TURNS, turned

HASH_SIDE: Final = 64  # of the square that PDQ hashes
SIDE: Final = 32  # of the square whose grey values are compared
HASH_BITS: Final = 16  # on each side of the square of PDQ's bits
MAX_DISTANCE: Final = 80  # of 256 bits; unrelated slides lie around 128, the best of eight turns seldom under 90
FEW_SLIDES: Final = 1000  # up to which all pairs are compared, without drawing
MAX_EVEN_DISTANCE: Final = 27  # of the 64 bits that flips leave alone; seven of eight unrelated slides are further
BIT_ERROR: Final = 0.22  # share of bits in which a copy may differ and still be met with probability MEETING
MEETING: Final = 0.99
MAX_BUCKET: Final = 64  # slides that one slide meets in one draw; more of them means that the bits say nothing
MIN_CORRELATION: Final = 0.85
MIN_OVERLAP: Final = 0.75  # intersection over union of the two tissue areas
MIN_PIXELS: Final = 24  # of a square, tissue seen in both slides


_Pairs = tuple[NDArray[np.int64], NDArray[np.int64], bool]  # one, other, whether the other is transposed


@dataclass(frozen=True)
class Fingerprint:
    """A slide reduced for comparison, 3.5 KB; the first axis is the view: whole frame, tissue box.

    Attributes:
        coefficients: the cosine transform whose values above the median are PDQ's bits, (2, 16, 16).
        grey: grey values, splats filled from their surroundings, (2, SIDE, SIDE).
        tissue: true on tissue, packed, (2, SIDE * SIDE / 8).
        hidden: true where a splat hides what is below, packed as well.
    """

    coefficients: NDArray[np.float16]
    grey: NDArray[np.uint8]
    tissue: NDArray[np.uint8]
    hidden: NDArray[np.uint8]


def fingerprint(
    small: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    splat: NDArray[np.bool_] | None = None,
) -> Fingerprint:
    """The fingerprint of a slide's working copy (height, width, 3), its silhouette and splats."""
    grey = np.asarray(cv2.cvtColor(halved(small), cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    tissue = halved_mask(inside).view(np.uint8)
    hidden = np.zeros_like(tissue) if splat is None else halved_mask(splat).view(np.uint8)
    if splat is not None:
        # Of the bits, fewer change than with the splat painted over in the colour of the glass.
        grey = np.asarray(cv2.inpaint(grey, hidden, 3, cv2.INPAINT_NS), dtype=np.uint8)
        tissue = tissue & ~hidden
    views = [(slice(None), slice(None)), _box(tissue)]
    squares = [_reduce(grey[view], HASH_SIDE) for view in views]
    return Fingerprint(
        np.stack([_coefficients(square) for square in squares]),
        np.stack([_reduce(square, SIDE) for square in squares]),
        np.stack([np.packbits(_reduce(tissue[view] * np.uint8(255), SIDE) > 127) for view in views]),
        np.stack([np.packbits(_reduce(hidden[view], SIDE, cv2.INTER_NEAREST) > 0) for view in views]),
    )


def near_duplicates(prints: Sequence[Fingerprint]) -> list[tuple[int, ...]]:
    """The clusters of two or more near-copies, as positions in `prints`, each sorted."""
    from scipy.cluster.hierarchy import DisjointSet  # half a second, which a reused run does not spend

    copies = DisjointSet(range(len(prints)))
    for one, other, view, turn in _meetings(prints):
        if not copies.connected(one, other) and _are_copies(prints[one], prints[other], view, turn):
            copies.merge(one, other)
    return sorted(tuple(sorted(cluster)) for cluster in copies.subsets() if len(cluster) > 1)


def similarity(one: Fingerprint, other: Fingerprint, view: int, turn: int) -> tuple[float, float]:
    """Correlation of the grey values on common tissue, and overlap of the two tissues, after turning `other`."""
    tissue, hidden = (turned(_unpacked(packed[view]), turn) for packed in (other.tissue, other.hidden))
    own = _unpacked(one.tissue[view])
    seen = ~(_unpacked(one.hidden[view]) | hidden)
    either = (own | tissue) & seen
    both = own & tissue & seen
    if both.sum() < MIN_PIXELS:
        return 0.0, 0.0
    first = one.grey[view][both].astype(np.float32)
    second = turned(other.grey[view], turn)[both].astype(np.float32)
    first, second = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return (float((first * second).sum()) / norm if norm else 0.0), float(both.sum() / either.sum())


def _are_copies(one: Fingerprint, other: Fingerprint, view: int, turn: int) -> bool:
    correlation, overlap = similarity(one, other, view, turn)
    return correlation >= MIN_CORRELATION and overlap >= MIN_OVERLAP


def _meetings(prints: Sequence[Fingerprint]) -> list[tuple[int, int, int, int]]:
    """The sorted (one, other, view, turn), one before other, whose hashes are near once the other is turned."""
    found: set[tuple[int, int, int, int]] = set()
    for view in range(2):
        shown = [i for i, it in enumerate(prints) if np.bitwise_count(it.tissue[view]).sum() >= MIN_PIXELS]
        if len(shown) < 2:
            continue
        coefficients = np.stack([prints[index].coefficients[view] for index in shown])
        hashes = [_packed(_turned_bits(coefficients, turn)) for turn in range(len(TURNS))]
        for one, other, transposed in _drawn_together(_turned_bits(coefficients, 0)):
            for turn, (quarters, _) in enumerate(TURNS):
                if quarters % 2 == transposed:
                    distance = np.bitwise_count(hashes[0][one] ^ hashes[turn][other]).sum(axis=1, dtype=np.uint16)
                    near = np.flatnonzero(distance <= MAX_DISTANCE)
                    pairs = zip(one[near].tolist(), other[near].tolist(), strict=True)
                    found.update((shown[i], shown[j], view, turn) for i, j in pairs)
    return sorted(found)


def _drawn_together(bits: NDArray[np.bool_]) -> Iterator[_Pairs]:
    """Slides that agree in all bits of a draw, or all pairs of a few slides; one before other.

    Drawn is from the quarter of the bits (slides, 16, 16) that flips and half turns leave as they are.
    """
    slides, even = len(bits), bits[:, ::2, ::2]
    flat = [of.reshape(slides, -1) for of in (even, even.swapaxes(1, 2))]
    upright, lying = (np.ascontiguousarray(of.T, dtype=np.int32) for of in flat)
    words = [np.packbits(of, axis=1).view(np.uint64)[:, 0] for of in flat]

    def near(one: NDArray[np.int64], other: NDArray[np.int64], transposed: bool) -> _Pairs:
        close = np.bitwise_count(words[0][one] ^ words[transposed][other]) <= MAX_EVEN_DISTANCE
        return one[close], other[close], transposed

    if slides <= FEW_SLIDES:
        one, other = np.triu_indices(slides, 1)
        yield near(one, other, False)
        yield near(one, other, True)
        return
    drawn = max(6, math.ceil(math.log2(slides)))  # bits; leaves about one unrelated slide to meet in a draw
    draws = math.ceil(math.log(1 - MEETING) / math.log(1 - (1 - BIT_ERROR) ** drawn))
    random = np.random.default_rng(0)
    place = slides.bit_length()  # the slide's number stands in the lowest bits of its key
    for _ in range(draws):
        chosen = random.choice(len(upright), drawn, replace=False).tolist()
        stored, asked = (np.sort(_keys(of, chosen) << place | np.arange(slides)) for of in (upright, lying))
        for keys, transposed in ((stored, False), (asked, True)):
            position = np.searchsorted(stored, keys)  # where the slide itself would stand among those with its key
            for back in range(1, MAX_BUCKET + 1):
                candidate = stored[np.maximum(position - back, 0)]
                same = (position >= back) & ((candidate ^ keys) >> place == 0)
                if not same.any():
                    break
                keys, position, number = keys[same], position[same], (1 << place) - 1
                yield near(candidate[same] & number, keys & number, transposed)


def _keys(bits: NDArray[np.int32], chosen: Sequence[int]) -> NDArray[np.int64]:
    """The chosen rows of bits (64, slides) as one number for each slide."""
    key = np.zeros(bits.shape[1], dtype=np.int32)
    for row in chosen:
        key <<= 1
        key |= bits[row]
    return key.astype(np.int64)


def _coefficients(square: NDArray[np.uint8]) -> NDArray[np.float16]:
    """PDQ of a grey square before the threshold, (16, 16); a row or column with an odd number turns its sign in a flip."""
    values, _ = pdqhash.compute_float(cv2.merge([square, square, square]))
    return np.asarray(values, dtype=np.float16).reshape(HASH_BITS, HASH_BITS)


def _turned_bits(coefficients: NDArray[np.float16], turn: int) -> NDArray[np.bool_]:
    """The PDQ bits (slides, 16, 16) of the pictures in one of the TURNS."""
    quarters, mirrored = TURNS[turn]
    values = (coefficients.swapaxes(1, 2) if quarters % 2 else coefficients).astype(np.float32)
    if quarters in (1, 2):
        values[:, 1::2] *= -1
    if (quarters in (2, 3)) != mirrored:
        values[:, :, 1::2] *= -1
    return np.asarray(values > np.median(values, axis=(1, 2), keepdims=True))


def _packed(bits: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Bits (slides, 16, 16) as words, (slides, 4)."""
    return np.packbits(bits.reshape(len(bits), -1), axis=1).view(np.uint64)


def _box(tissue: NDArray[np.uint8]) -> tuple[slice, slice]:
    x, y, width, height = cv2.boundingRect(tissue)
    if width == 0 or height == 0:
        return slice(None), slice(None)
    return slice(y, y + height), slice(x, x + width)


def _reduce(array: NDArray[np.uint8], side: int, filtered: int = cv2.INTER_AREA) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(array, (side, side), interpolation=filtered), dtype=np.uint8)


def _unpacked(packed: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.unpackbits(packed).reshape(SIDE, SIDE).view(np.bool_)
