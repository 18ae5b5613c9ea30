"""The pixels of a view as one array over its parts."""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from doctogres.patches.parts import Part, header

FEW_OPEN: Final = 1000  # where the limit cannot be asked for
MOST_OPEN: Final = 10_000  # the kernel's limit of mapped files is 65,530
ASKED: Final = 128 * 1024  # bytes; Linux may read no more of what is asked for at once


Rows = npt.NDArray[np.int64]


class JoinedPixels:
    """Patches in several parts, read as numpy reads one uint8 array of (patches, size, size, 3).

    An index (a number, a slice, an array of numbers) gives the pixels in memory. Parts are memory-mapped when they are first
    read; of very many, only those read last stay open, because each takes one of the files that a process may open.

    The kernel is told which patches are read next, and reads no others: what it would read ahead of a few patches here and
    there costs a cache larger than the memory more than the patches themselves.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, parts: Sequence[Part], places: Rows, size: int):
        """Joins parts.

        Args:
            parts: of one view, all of them written.
            places: (patches,) of each patch, its number when the parts' patches are counted through.
            size: side of a patch in pixels.
        """
        self._places = places
        self._starts = np.cumsum([0, *map(len, parts)])
        self._mapped = lru_cache(maxsize=_open_parts())(lambda number: _Mapped(parts[number]))
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
        self._ask(flat)
        pixels = np.empty((len(flat), *self.shape[1:]), np.uint8)
        for number, first, last in self._runs(flat):
            own = flat[first:last] - self._starts[number]
            # `clip` writes straight into `out`; all numbers are inside.
            np.take(self._mapped(number).pixels, own, axis=0, out=pixels[first:last], mode="clip")
        return pixels.reshape(*places.shape, *self.shape[1:])

    def ask(self, rows: Rows) -> None:
        """Has the kernel read these rows from the disk while the program does something else."""
        self._ask(self._places[rows])

    def _ask(self, places: Rows) -> None:
        for number, first, last in self._runs(places):
            self._mapped(number).ask(places[first:last] - self._starts[number])

    def _runs(self, places: Rows) -> list[tuple[int, int, int]]:
        """(part, first, last) for every stretch of places that lies in one part."""
        if not len(places):
            return []
        numbers = np.searchsorted(self._starts, places, side="right") - 1
        return [(int(numbers[first]), first, last) for first, last in _stretches(np.diff(numbers) != 0)]


class _Mapped:
    """A part in memory, as far as it is read."""

    def __init__(self, part: Part):
        begin = header(len(part), part.size)
        self._begin, self._patch = len(begin), part.nbytes // len(part)
        with part.path.open("rb") as file:
            self._memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._memory.madvise(mmap.MADV_RANDOM)
        shape = (len(part), part.size, part.size, 3)
        self.pixels = np.frombuffer(self._memory, np.uint8, part.nbytes, self._begin).reshape(shape)

    def ask(self, rows: Rows) -> None:
        for first, last in _stretches(np.diff(rows) != 1):
            start = (self._begin + int(rows[first]) * self._patch) // mmap.PAGESIZE * mmap.PAGESIZE
            stop = self._begin + (int(rows[last - 1]) + 1) * self._patch
            for at in range(start, stop, ASKED):
                self._memory.madvise(mmap.MADV_WILLNEED, at, min(ASKED, stop - at))


def _stretches(breaks: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """(first, last) of every stretch of a sequence, given where its next element breaks it off."""
    return pairwise([0, *(np.flatnonzero(breaks) + 1).tolist(), len(breaks) + 1])


def read_ahead(pixels: Any, batches: Iterable[Rows], *, share: slice = slice(None)) -> Iterator[Rows]:
    """Passes batches of row numbers on; while one is worked on, the kernel reads the pixels of the next from the disk.

    Args:
        pixels: of a `PatchSet`; nothing is done for those in memory.
        batches: in the order in which they will be read.
        share: of every batch, what this process will read.
    """
    upcoming = iter(batches)
    batch = next(upcoming, None)
    while batch is not None:
        following = next(upcoming, None)
        if following is not None and isinstance(pixels, JoinedPixels):
            pixels.ask(following[share])
        yield batch
        batch = following


def _open_parts() -> int:
    """How many parts may be open at once: a quarter of the files that this process may open."""
    try:
        import resource
    except ImportError:  # Windows
        return FEW_OPEN
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return MOST_OPEN if allowed == resource.RLIM_INFINITY else min(MOST_OPEN, allowed // 4)
