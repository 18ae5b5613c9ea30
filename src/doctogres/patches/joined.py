"""The pixels of a view as one array over its parts."""

import resource
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from doctogres.patches.parts import Part

MOST_OPEN: Final = 10_000  # the kernel's limit of mapped files is 65,530


class JoinedPixels:
    """Patches in several parts, read as numpy reads one uint8 array of (patches, size, size, 3).

    An index (a number, a slice, an array of numbers) gives the pixels in memory. Parts are memory-mapped when they are first
    read; of very many, only those read last stay open, because each takes one of the files that a process may open.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, parts: Sequence[Part], places: npt.NDArray[np.int64], size: int):
        """Joins parts.

        Args:
            parts: of one view, all of them written.
            places: (patches,) of each patch, its number when the parts' patches are counted through.
            size: side of a patch in pixels.
        """
        self._parts, self._places = parts, places
        self._starts = np.cumsum([0, *map(len, parts)])
        self._mapped = lru_cache(maxsize=_open_parts())(lambda number: parts[number].mapped())
        self.shape = (len(places), size, size, 3)

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        return map(self.__getitem__, range(len(self)))

    @property
    def nbytes(self) -> int:
        """Bytes of all patches."""
        return int(np.prod(self.shape))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("the pixels are in several files; they can only be copied")
        return self[:].astype(dtype or np.uint8, copy=False)

    def __getitem__(self, rows: Any) -> npt.NDArray[np.uint8]:
        places = self._places[rows]  # numpy says what an index means
        flat = places.reshape(-1)
        pixels = np.empty((len(flat), *self.shape[1:]), np.uint8)
        for number, first, last in self._runs(flat):
            own = flat[first:last] - self._starts[number]
            # `clip` writes straight into `out`; all numbers are inside.
            np.take(self._mapped(number), own, axis=0, out=pixels[first:last], mode="clip")
        return pixels.reshape(*places.shape, *self.shape[1:])

    def _runs(self, places: npt.NDArray[np.int64]) -> list[tuple[int, int, int]]:
        """(part, first, last) for every stretch of places that lies in one part."""
        if not len(places):
            return []
        numbers = np.searchsorted(self._starts, places, side="right") - 1
        edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(places)]
        return [(int(numbers[first]), first, last) for first, last in pairwise(edges)]


def _open_parts() -> int:
    """How many parts may be open at once: a quarter of the files that this process may open."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_OPEN if allowed == resource.RLIM_INFINITY else min(MOST_OPEN, allowed // 4)
