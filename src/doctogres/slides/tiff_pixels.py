"""The pixels of a TIFF file's first page."""

import io
from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from PIL import Image, PngImagePlugin, TiffImagePlugin

from doctogres.slides.bands import LARGE, Pixels, Stored
from doctogres.slides.tiff import Page, Tag, compression_name

WHITE_IS_ZERO: Final = 0
SIGNED: Final = 2
SEPARATE_PLANES: Final = 2
MULTIPLIED_ALPHA: Final = 1
DEEP_GREY: Final = frozenset(("I;16", "I;16B"))


class UndecodableError(ValueError):
    """A page that is whole, and that the decoders cannot read or read differently."""


class FirstPage(TiffImagePlugin.TiffImageFile):
    """Pillow's reader without its own pixel limit, and without its walk through all pages, endless in a hostile file."""

    @property
    def is_animated(self) -> bool:
        return False

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.new(self.mode, self._tile_size, None).im
        super().load_prepare()


def misread(page: Page) -> str:
    """What a page holds that the decoders take for something else; empty where there is nothing."""
    if page.bits <= 8:
        return "signed values" if page.number(Tag.SAMPLE_FORMAT, 1) == SIGNED else ""
    if page.number(Tag.PHOTOMETRIC, 1) == WHITE_IS_ZERO:
        return f"{page.bits}-bit values of which 0 is white"
    if page.number(Tag.SAMPLES, 1) > 1 and page.number(Tag.PLANAR, 1) == SEPARATE_PLANES:
        return f"{page.bits}-bit colours in a plane each"
    if page.number(Tag.EXTRA_SAMPLES, 2) == MULTIPLIED_ALPHA:
        return f"{page.bits}-bit colours multiplied by their alpha"
    return ""


def first_page_pixels(data: bytes, flags: int, page: Page) -> Stored:
    """The first page, to be laid out as cv2 would.

    cv2 returns what it could decode of damaged compressed data, without a word. Pillow raises, takes less time, and
    knows alpha from colours multiplied by it; but it keeps only the upper byte of deep colours.

    Raises:
        UndecodableError: whole, but of a kind that the decoders lack.
        OSError: or another of Pillow's errors where the file is damaged.
    """
    image = FirstPage(io.BytesIO(data))
    unchanged = flags == cv2.IMREAD_UNCHANGED
    if unchanged and page.bits > 8 and image.mode not in DEEP_GREY:
        return Stored.of(_deep(data, image, page))
    return in_pieces(image, lambda piece: _laid_out(piece, unchanged))


def png_pixels(data: bytes) -> Stored:
    """A PNG of at most 8 bits, to be laid out as cv2 would; without its second copy of all pixels.

    Raises:
        OSError: or another of Pillow's errors where the file is damaged.
    """
    return in_pieces(PngImagePlugin.PngImageFile(io.BytesIO(data)), lambda piece: _laid_out(piece, unchanged=True))


def in_pieces(image: Image.Image, lay_out: Callable[[Image.Image], Pixels]) -> Stored:
    """A picture of Pillow's, decoded, with `lay_out` for some of its rows; a small one is faster laid out at once.

    Raises:
        OSError: or another of Pillow's errors where the file is damaged.
    """
    image.load()
    width, height = image.size
    if width * height <= LARGE:
        return Stored.of(lay_out(image))
    return Stored(width, height, lambda rows: lay_out(image.crop((0, rows.start, width, rows.stop))))


def _laid_out(image: Image.Image, unchanged: bool) -> Pixels:
    if image.mode in DEEP_GREY:
        deep = np.asarray(image, dtype=np.uint16)
        return deep if unchanged else cv2.cvtColor((deep >> 8).astype(np.uint8), cv2.COLOR_GRAY2RGB)
    if image.mode in {"1", "L"}:
        grey = np.asarray(image, dtype=np.uint8) * (255 if image.mode == "1" else 1)
        return grey if unchanged else cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    if image.mode == "La":
        image = image.convert("LA")
    if unchanged and (image.mode in {"LA", "PA", "RGBA"} or "transparency" in image.info):
        return cv2.cvtColor(np.asarray(image.convert("RGBA")), cv2.COLOR_RGBA2BGRA)
    colours = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    return cv2.cvtColor(colours, cv2.COLOR_RGB2BGR) if unchanged else colours


def _deep(data: bytes, image: Image.Image, page: Page) -> Pixels:
    """What cv2 decodes, where Pillow finds no damage and the same upper bytes."""
    upper = np.asarray(image)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise UndecodableError(f"a TIFF of {page} with {compression_name(page.number(Tag.COMPRESSION, 1))}")
    if image.mode in {"RGB", "RGBA"} and pixels.dtype == np.uint16:
        pixels = pixels[..., : upper.shape[2]]
        back = pixels[..., [2, 1, 0, 3][: upper.shape[2]]]
        if back.shape != upper.shape or not np.array_equal(back.astype(np.uint16) >> 8, upper):
            raise UndecodableError(f"a TIFF of {page} that two decoders read differently")
    return pixels
