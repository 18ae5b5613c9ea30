"""Scanner files and pyramidal TIFFs, read with OpenSlide: the parts that are asked for, never all pixels of the slide.

OpenSlide opens a file by its path and believes its directories, so `levels` looks at these first.
"""

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from doctogres.files import TEMPORARY
from doctogres.liveness import process_name
from doctogres.slides.formats import ImageError, Source, TooManyPixelsError, max_pixels
from doctogres.slides.resolution import believed
from doctogres.slides.scale import factor
from doctogres.slides.source import WORKING_SIDE, Rectangle, SlideSource

if TYPE_CHECKING:
    from openslide import OpenSlide

# A part of no more pixels is read at its full size, so that a patch is the same as that of a decoded picture.
EXACT_PIXELS: Final = 2**22
STRIP_PIXELS: Final = 2**23  # of a larger part read at once; four bytes each
MASK_REDUCTION: Final = 64  # times that a mask may be smaller: programs export it at a sixteenth, or at 32
FINER: Final = 2  # a level's pixels per pixel wanted, at least: what lies between two of its pixels then does not show
REMEDY: Final = "export it again, for example: vips tiffsave IN OUT.tif --pyramid --tile --compression jpeg"


class Pyramid(SlideSource):
    """A slide with reduced copies of itself, all in tiles; several threads may read it at once."""

    mask_reduction = MASK_REDUCTION

    def __init__(self, slide: "OpenSlide", name: str, kept: Any = None):
        """Takes an open slide, its name for errors, and what must live as long as it."""
        self._slide, self._name, self._kept = slide, name, kept
        self._size: tuple[int, int] = slide.dimensions
        # OpenSlide divides the sizes, which are rounded: copies halved three times would be 8.02 times smaller.
        sizes = zip(slide.level_dimensions, slide.level_downsamples, strict=True)
        self._downsamples = [factor(self._size, size, math.inf) or float(stated) for size, stated in sizes]
        self.mpp = believed(*(_microns(slide.properties.get(f"openslide.mpp-{axis}", "")) for axis in "xy"))
        background = slide.properties.get("openslide.background-color", "FFFFFF")
        self._ground = np.array([int(background[place : place + 2], 16) for place in (0, 2, 4)], np.float32)

    @classmethod
    def open(cls, source: Source, name: str) -> Self:
        """Opens a file, or the bytes of one, which then lie in a temporary file for as long.

        Raises:
            ImageError: OpenSlide is not installed, or cannot read the file.
        """
        try:
            import openslide
        except ImportError as error:
            raise ImageError(
                f"{name} is a scanner file or a large pyramid, for which OpenSlide is needed; install it with "
                "`pip install openslide-python openslide-bin`, or export the slide as PNG"
            ) from error
        path, kept = (source, None) if isinstance(source, Path) else _as_file(source)
        with _refusals(name):
            return cls(openslide.OpenSlide(os.fspath(path)), name, kept)

    @property
    def size(self) -> tuple[int, int]:
        return self._size

    @cached_property
    def working(self) -> NDArray[np.uint8]:
        width, height = self._size
        halvings = 0
        while max(width, height) >> halvings > WORKING_SIDE:
            halvings += 1
        size = max(1, width >> halvings), max(1, height >> halvings)
        part = Rectangle(0, 0, min(width, size[0] << halvings), min(height, size[1] << halvings))
        pixels, _ = self._reduced(part, self._level(1 << halvings), size)
        return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)

    def read(self, part: Rectangle, size: tuple[int, int]) -> tuple[NDArray[np.uint8], float]:
        width, height = part.right - part.left, part.bottom - part.top
        if width * height <= EXACT_PIXELS:
            return self._pixels(part.left, part.top, 0, width, height), 1.0
        finest = min(width / size[0], height / size[1]) / FINER
        wanted = FINER * size[0], FINER * size[1]
        return self._reduced(part, self._level(finest), wanted)

    def _level(self, downsample: float) -> int:
        """The most reduced level that is reduced at most so much, but for the rounding of its size."""
        return max(
            (level for level, own in enumerate(self._downsamples) if own <= max(1.0, downsample * 1.01)), default=0
        )

    def _reduced(self, part: Rectangle, level: int, size: tuple[int, int]) -> tuple[NDArray[np.uint8], float]:
        """A part at a level, further reduced by a whole number where that leaves at least `size`.

        It is read in strips, which bounds the memory.
        """
        scale = self._downsamples[level]
        width = max(1, round((part.right - part.left) / scale))
        height = max(1, round((part.bottom - part.top) / scale))
        if width * height > (limit := max_pixels()):
            raise TooManyPixelsError(
                f"{self._name} has no reduced copy of {self._size[0]} x {self._size[1]} pixels that is small enough: "
                f"{width} x {height} pixels would be read, more than the limit of {limit}; {REMEDY}"
            )
        left, first = round(part.left / scale), round(part.top / scale)
        by = max(1, min(width // size[0], height // size[1])) if width * height > STRIP_PIXELS else 1
        columns, rows = width // by, height // by
        pixels = np.empty((rows, columns, 3), np.uint8)
        at_once = max(1, STRIP_PIXELS // (columns * by * by))
        for top in range(0, rows, at_once):
            strip = pixels[top : top + at_once]
            read = self._pixels(left, first + top * by, level, columns * by, len(strip) * by)
            cv2.resize(read, strip.shape[1::-1], dst=strip, interpolation=cv2.INTER_AREA)
        return pixels, scale * by

    def _pixels(self, left: int, top: int, level: int, width: int, height: int) -> NDArray[np.uint8]:
        """Pixels of a level, by its own coordinates, (height, width, 3); what the scanner left out is background."""
        by = self._slide.level_downsamples[level]
        with _refusals(self._name):
            rgba = np.asarray(self._slide.read_region((round(left * by), round(top * by)), level, (width, height)))
        rgb = np.asarray(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), np.uint8)
        alpha = rgba[..., 3]
        if cv2.minMaxLoc(alpha)[0] < 255:
            share = alpha[..., None] / np.float32(255)
            rgb = np.round(rgb * share + self._ground * (1 - share)).astype(np.uint8)
        return rgb


def _microns(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _as_file(content: bytes) -> tuple[str, Any]:
    """The path of a temporary file with this content, and what removes it once nothing refers to it."""
    owned = f"{TEMPORARY}{process_name()}-"  # by which it is swept if this process is killed
    file = tempfile.NamedTemporaryFile(prefix=owned, suffix=".tif")  # noqa: SIM115 - lives as long as the slide
    file.write(content)
    file.flush()
    return file.name, file


@contextmanager
def _refusals(name: str) -> Iterator[None]:
    """OpenSlide's errors as ours."""
    import openslide

    try:
        yield
    except openslide.OpenSlideUnsupportedFormatError as error:
        raise ImageError(f"{name} is damaged, or no scanner file that OpenSlide reads; copy or {REMEDY}") from error
    except openslide.OpenSlideError as error:
        raise ImageError(f"{name} is damaged inside ({error}); copy or {REMEDY}") from error
