"""Clusters of near-duplicate slides: rotated, flipped, scaled, re-saved, or with a splat added.

Two views of a slide, the whole frame and the bounding box of its tissue, are hashed with PDQ (Meta 2019). PDQ keeps the
signs of a cosine transform, so the hashes of all eight rotations and flips follow from one: a flip changes the sign of
every other row or column, and a quarter turn also transposes. Candidate pairs come from locality-sensitive hashing by
bit sampling (Indyk & Motwani 1998): slides that agree in a few randomly drawn bits, in any of many draws, so that the
work grows with the number of candidates and not with the square of the cohort. Candidates are compared on all bits and
then on grey values, on tissue only, because glass looks the same on all slides.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, Self

import cv2
import numpy as np
import pdqhash
from numpy.typing import NDArray

from doctogres.progress import counted
from doctogres.slides.tissue import halved, halved_mask
from doctogres.slides.turns import TURNS, turned

HASH_SIDE: Final = 64  # of the square that PDQ hashes
SIDE: Final = 32  # of the square whose grey values are compared
HASH_BITS: Final = 16  # on each side of the square of PDQ's bits
MAX_DISTANCE: Final = 80  # of 256 bits; unrelated slides differ in about 128, the best of eight turns seldom under 90
MAX_EXHAUSTIVE: Final = 1000  # slides up to which all pairs are compared, without sampling
MAX_EVEN_DISTANCE: Final = 27  # of the 64 bits that flips do not change; seven of eight unrelated slides exceed it
BIT_ERROR: Final = 0.22  # share of bits in which a copy may differ and still be a candidate with probability RECALL
RECALL: Final = 0.99
MAX_BUCKET: Final = 64  # candidates of one slide in one draw; beyond that the drawn bits are uninformative
MIN_CORRELATION: Final = 0.85
MIN_OVERLAP: Final = 0.75  # intersection over union of the two tissue areas
MIN_PIXELS: Final = 24  # of a square, tissue visible in both slides
CHUNK: Final = 256  # hashes that are in memory at a time
HASH_BYTES: Final = 2 * (2 * HASH_BITS**2 + SIDE**2 + 2 * SIDE**2 // 8)
SPLITS: Final = (2 * SIDE**2, 2 * SIDE**2 * 9 // 8)  # where the tissue and what is hidden begin in a packed hash


_Pairs = tuple[NDArray[np.int64], NDArray[np.int64], bool]  # first, second, whether the second is transposed


@dataclass(frozen=True)
class PictureHash:
    """A slide reduced for comparison, 3.5 KB; the first axis is the view: whole frame, tissue box.

    Attributes:
        coefficients: the cosine transform whose values above the median are PDQ's bits, (2, 16, 16).
        grey: grey values, splats filled from their surroundings, (2, SIDE, SIDE).
        tissue: true on tissue, packed, (2, SIDE * SIDE / 8).
        hidden: true where a splat hides the slide, packed as well.
    """

    coefficients: NDArray[np.float16]
    grey: NDArray[np.uint8]
    tissue: NDArray[np.uint8]
    hidden: NDArray[np.uint8]

    def packed(self) -> bytes:
        """All of it in HASH_BYTES bytes."""
        return b"".join(array.tobytes() for array in (self.coefficients, self.grey, self.tissue, self.hidden))

    @classmethod
    def unpacked(cls, packed: bytes) -> Self:
        """The reverse of `packed`."""
        coefficients = np.frombuffer(packed, np.float16, 2 * HASH_BITS**2)
        grey, tissue, hidden = np.split(np.frombuffer(packed, np.uint8)[coefficients.nbytes :], SPLITS)
        tissue, hidden = tissue.reshape(2, -1), hidden.reshape(2, -1)
        return cls(coefficients.reshape(2, HASH_BITS, HASH_BITS), grey.reshape(2, SIDE, SIDE), tissue, hidden)


def hash_picture(
    small: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    splat: NDArray[np.bool_] | None = None,
) -> PictureHash:
    """The hash of a slide's working copy (height, width, 3), its silhouette and splats."""
    grey = np.asarray(cv2.cvtColor(halved(small), cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    tissue = halved_mask(inside).view(np.uint8)
    hidden = np.zeros_like(tissue) if splat is None else halved_mask(splat).view(np.uint8)
    if splat is not None:
        # Inpainting changes fewer bits than filling the splat with the colour of the glass.
        grey = np.asarray(cv2.inpaint(grey, hidden, 3, cv2.INPAINT_NS), dtype=np.uint8)
        tissue = tissue & ~hidden
    views = [(slice(None), slice(None)), _box(tissue)]
    squares = [_reduce(grey[view], HASH_SIDE) for view in views]
    return PictureHash(
        np.stack([_coefficients(square) for square in squares]),
        np.stack([_reduce(square, SIDE) for square in squares]),
        np.stack([np.packbits(_reduce(tissue[view] * np.uint8(255), SIDE) > 127) for view in views]),
        np.stack([np.packbits(_reduce(hidden[view], SIDE, cv2.INTER_NEAREST) > 0) for view in views]),
    )


def near_duplicates(prints: Sequence[PictureHash]) -> list[tuple[int, ...]]:
    """The clusters of two or more near-duplicates, as positions in `prints`, each sorted.

    `prints` may read a hash from the disk whenever it is asked for it: no more than a few are held at a time.
    """
    from scipy.cluster.hierarchy import DisjointSet  # half a second to import, which a reused run does not need

    copies = DisjointSet(range(len(prints)))
    for first, second, view, turn in _candidate_pairs(prints):
        if not copies.connected(first, second) and _are_copies(prints[first], prints[second], view, turn):
            copies.merge(first, second)
    return sorted(tuple(sorted(cluster)) for cluster in copies.subsets() if len(cluster) > 1)


def similarity(first: PictureHash, second: PictureHash, view: int, turn: int) -> tuple[float, float]:
    """Correlation of the grey values on common tissue, and overlap of the two tissue areas, after turning `second`."""
    second_tissue, second_hidden = (turned(_unpacked(packed[view]), turn) for packed in (second.tissue, second.hidden))
    first_tissue = _unpacked(first.tissue[view])
    visible = ~(_unpacked(first.hidden[view]) | second_hidden)
    either = (first_tissue | second_tissue) & visible
    both = first_tissue & second_tissue & visible
    if both.sum() < MIN_PIXELS:
        return 0.0, 0.0
    x = first.grey[view][both].astype(np.float32)
    y = turned(second.grey[view], turn)[both].astype(np.float32)
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.sqrt((x**2).sum() * (y**2).sum()))
    return (float((x * y).sum()) / norm if norm else 0.0), float(both.sum() / either.sum())


def _are_copies(first: PictureHash, second: PictureHash, view: int, turn: int) -> bool:
    correlation, overlap = similarity(first, second, view, turn)
    return correlation >= MIN_CORRELATION and overlap >= MIN_OVERLAP


def _candidate_pairs(prints: Sequence[PictureHash]) -> list[tuple[int, int, int, int]]:
    """The sorted (first, second, view, turn), first < second, whose hashes are close once the second is turned."""
    candidates: set[tuple[int, int, int, int]] = set()
    hashes, tissue = _hashes(prints)
    for view in range(2):
        shown = np.flatnonzero(tissue[:, view] >= MIN_PIXELS)
        if len(shown) < 2:
            continue
        seen = hashes[view][:, shown]
        for first, second, transposed in _bucket_pairs(_even_bits(seen[0])):
            for turn, (quarters, _) in enumerate(TURNS):
                if quarters % 2 == transposed:
                    distance = np.bitwise_count(seen[0][first] ^ seen[turn][second]).sum(axis=1, dtype=np.uint16)
                    near = np.flatnonzero(distance <= MAX_DISTANCE)
                    pairs = zip(shown[first[near]].tolist(), shown[second[near]].tolist(), strict=True)
                    candidates.update((i, j, view, turn) for i, j in pairs)
    return sorted(candidates)


def _hashes(prints: Sequence[PictureHash]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Of every view and turn the bits of all slides as words, (2, turns, slides, 4); their pixels of tissue, (slides, 2)."""
    hashes = np.empty((2, len(TURNS), len(prints), HASH_BITS**2 // 64), np.uint64)
    tissue = np.empty((len(prints), 2), np.int64)
    for start in range(0, len(prints), CHUNK):
        chunk = [prints[place] for place in range(start, min(start + CHUNK, len(prints)))]
        stop = start + len(chunk)
        tissue[start:stop] = [np.bitwise_count(it.tissue).sum(axis=1) for it in chunk]
        coefficients = np.stack([it.coefficients for it in chunk])
        for view, turn in product(range(2), range(len(TURNS))):
            hashes[view, turn, start:stop] = _packed(_turned_bits(coefficients[:, view], turn))
    return hashes, tissue


def _bucket_pairs(even: NDArray[np.bool_]) -> Iterator[_Pairs]:
    """Pairs of slides that agree in all bits of a draw, or all pairs if there are few slides; first < second.

    Bits are drawn from the quarter of the bits (slides, 8, 8) that flips and half turns do not change.
    """
    slides = len(even)
    flat = [values.reshape(slides, -1) for values in (even, even.swapaxes(1, 2))]
    upright, lying = (np.ascontiguousarray(values.T, dtype=np.int32) for values in flat)
    words = [np.packbits(values, axis=1).view(np.uint64)[:, 0] for values in flat]

    def near(first: NDArray[np.int64], second: NDArray[np.int64], transposed: bool) -> _Pairs:
        close = np.bitwise_count(words[0][first] ^ words[transposed][second]) <= MAX_EVEN_DISTANCE
        return first[close], second[close], transposed

    if slides <= MAX_EXHAUSTIVE:
        first, second = np.triu_indices(slides, 1)
        yield near(first, second, False)
        yield near(first, second, True)
        return
    drawn = max(6, math.ceil(math.log2(slides)))  # bits; leaves about one unrelated slide per bucket
    draws = math.ceil(math.log(1 - RECALL) / math.log(1 - (1 - BIT_ERROR) ** drawn))
    random = np.random.default_rng(0)
    place = slides.bit_length()  # the lowest bits of a key hold the slide's number
    for _ in counted(range(draws), "search for near-copies", "draws", draws):
        chosen = random.choice(len(upright), drawn, replace=False).tolist()
        stored, queried = (np.sort(_keys(rows, chosen) << place | np.arange(slides)) for rows in (upright, lying))
        for keys, transposed in ((stored, False), (queried, True)):
            position = np.searchsorted(stored, keys)  # the slide's own position among those with its key
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
    """PDQ of a grey square before the threshold, (16, 16); a flip changes the sign of odd-numbered rows or columns."""
    values, _ = pdqhash.compute_float(cv2.merge([square, square, square]))
    return np.asarray(values, dtype=np.float16).reshape(HASH_BITS, HASH_BITS)


def _turned_bits(coefficients: NDArray[np.float16], turn: int) -> NDArray[np.bool_]:
    """The PDQ bits (slides, 16, 16) of the pictures after one of the TURNS."""
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


def _even_bits(words: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Of `_packed` bits those that flips and half turns do not change, (slides, 8, 8)."""
    side = HASH_BITS // 2
    rows = words.view(np.uint8).reshape(len(words), HASH_BITS, 2)[:, ::2]  # a row of 16 bits is two bytes
    return np.unpackbits(np.ascontiguousarray(rows), axis=2).view(np.bool_)[..., ::2].reshape(-1, side, side)


def _box(tissue: NDArray[np.uint8]) -> tuple[slice, slice]:
    x, y, width, height = cv2.boundingRect(tissue)
    if width == 0 or height == 0:
        return slice(None), slice(None)
    return slice(y, y + height), slice(x, x + width)


def _reduce(array: NDArray[np.uint8], side: int, filtered: int = cv2.INTER_AREA) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(array, (side, side), interpolation=filtered), dtype=np.uint8)


def _unpacked(packed: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.unpackbits(packed).reshape(SIDE, SIDE).view(np.bool_)
