"""The one way to a slide's pixels: its size, a working picture of bounded size, and regions at the size that is wanted.

A picture is decoded once (`DecodedPicture`); of a scanner's pyramid only what is asked for is read (`pyramid.Pyramid`).
Nothing else knows which of the two a slide is. Coordinates are pixels of the slide at its full size, x then y.
"""

import copy
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray

WORKING_SIDE: Final = 4096  # pixels: a pyramid's working picture is not longer; all verdicts look at 640 pixels at most


class Rectangle(NamedTuple):
    """A part of a slide, in its pixels; right and bottom lie outside."""

    left: int
    top: int
    right: int
    bottom: int


class SlideSource(ABC):
    """A slide's pixels.

    Attributes:
        mask_reduction: how many times its mask may be smaller than the slide.
        mpp: microns per pixel, None where they are not known.
    """

    mask_reduction: int = 1
    mpp: float | None = None

    def at(self, mpp: float | None) -> Self:
        """The same slide with so many microns per pixel; unchanged for None."""
        if mpp is None:
            return self
        stated = copy.copy(self)
        object.__setattr__(stated, "mpp", mpp)  # one of the two implementations is frozen
        return stated

    def unless_known(self, mpp: float | None) -> Self:
        """The same slide with so many microns per pixel, where its own are not known."""
        return self if self.mpp else self.at(mpp or None)

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""

    @property
    @abstractmethod
    def working(self) -> NDArray[np.uint8]:
        """The whole slide, (rows, columns, 3): a picture itself; a pyramid halved until no side exceeds WORKING_SIDE.

        Raises:
            ImageError: it cannot be read.
        """

    @abstractmethod
    def read(self, part: Rectangle, size: tuple[int, int]) -> tuple[NDArray[np.uint8], float]:
        """The pixels of a part that lies inside the slide, at its full size or reduced.

        Args:
            part: what to read.
            size: the width and height to which it will be made smaller or larger; a reduced copy is not smaller.

        Returns:
            (rows, columns, 3), and how many of the slide's pixels one of its pixels is wide.

        Raises:
            ImageError: it cannot be read.
        """

    def region(self, part: Rectangle, size: tuple[int, int]) -> NDArray[np.uint8]:
        """A part of the slide at another size; the pixels of its edge are repeated beyond the edge.

        Args:
            part: it may exceed the slide.
            size: width and height of the result in pixels.

        Returns:
            (height, width, 3).

        Raises:
            ImageError: it cannot be read.
        """
        width, height = self.size
        left, top, right, bottom = part
        within = Rectangle(max(left, 0), max(top, 0), min(right, width), min(bottom, height))
        inside, scale = self.read(within, size)
        missing = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
        if any(missing):
            above, below, before, behind = (round(side / scale) for side in missing)
            filled = cv2.copyMakeBorder(inside, above, below, before, behind, borderType=cv2.BORDER_REPLICATE)
            inside = np.asarray(filled, np.uint8)
        # Area averaging is the only OpenCV filter that does not alias when shrinking.
        interpolation = cv2.INTER_AREA if right - left > size[0] else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(inside, size, interpolation=interpolation), dtype=np.uint8)


@dataclass(frozen=True)
class DecodedPicture(SlideSource):
    """A picture whose pixels are all in memory.

    Attributes:
        rgb: (height, width, 3).
        mpp: microns per pixel.
    """

    rgb: NDArray[np.uint8]
    mpp: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.rgb.shape[1], self.rgb.shape[0]

    @property
    def working(self) -> NDArray[np.uint8]:
        return self.rgb

    def read(self, part: Rectangle, size: tuple[int, int]) -> tuple[NDArray[np.uint8], float]:
        return self.rgb[part.top : part.bottom, part.left : part.right], 1.0


Picture = SlideSource | NDArray[np.uint8]


def source_of(picture: Picture) -> SlideSource:
    """The source of a picture that may be an array, (height, width, 3)."""
    return picture if isinstance(picture, SlideSource) else DecodedPicture(picture)
