"""Pixels in bands of rows, so that work on a large picture takes little more memory than the picture itself."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.integer[Any] | np.floating[Any]]  # what cv2 decodes, or part of it

PIXELS_AT_ONCE: Final = 2**18  # of a band: a processor keeps it and what is made of it at hand

LARGE: Final = 2**24  # pixels, of which a second copy counts


def bands(width: int, height: int) -> Iterator[slice]:
    """The rows of a picture in bands of about PIXELS_AT_ONCE pixels, a row at least."""
    rows = max(1, PIXELS_AT_ONCE // max(1, width))
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


@dataclass(frozen=True)
class Stored:
    """The pixels of a decoded file.

    Attributes:
        width: in pixels, as stored.
        height: in pixels, as stored.
        rows: lays out the pixels of some rows, (rows, width[, channels]).
        laid_out: all of them, where they are laid out already.
    """

    width: int
    height: int
    rows: Callable[[slice], Pixels]
    laid_out: Pixels | None = None

    @classmethod
    def of(cls, pixels: Pixels) -> Self:
        """Pixels that are laid out already."""
        return cls(pixels.shape[1], pixels.shape[0], lambda rows: pixels[rows], pixels)

    def bands(self) -> Iterator[tuple[slice, Pixels]]:
        """All rows, from the top, a band at a time."""
        return ((rows, self.rows(rows)) for rows in bands(self.width, self.height))

    def whole(self) -> Pixels:
        """All pixels, (height, width[, channels])."""
        if self.laid_out is not None:
            return self.laid_out
        first = self.rows(slice(0, 1))
        pixels = np.empty((self.height, *first.shape[1:]), first.dtype)
        for rows, band in self.bands():
            pixels[rows] = band
        return pixels
