"""What a picture's file says about itself, and its pixels as they are stored: size guard, completeness, decoding.

Pillow reads the header (size, mode, orientation); cv2 decodes, and Pillow most TIFFs, outside the interpreter lock.
A file that is whole but of a kind that they cannot read is refused by its kind, and never called damaged.
"""

import io
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from doctogres.errors import DoctogresError
from doctogres.slides.bands import LARGE, Stored
from doctogres.slides.jpeg import unusual_jpeg
from doctogres.slides.layout import FORMAT_NAMES, FORMATS
from doctogres.slides.limits import limit_from_environment
from doctogres.slides.reasons import Reason
from doctogres.slides.tiff import COMPRESSIONS, Page, Tag, TiffError, compression_name, first_page
from doctogres.slides.tiff_pixels import UndecodableError, first_page_pixels, misread, png_pixels

Source = Path | bytes

MAX_PIXELS_VARIABLE: Final = "DOCTOGRES_MAX_PIXELS"
DEFAULT_MAX_PIXELS: Final = 200_000_000
MAX_SIDE: Final = 100_000  # a decoder that keeps a record of every row needs more than for the pixels
PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
ORIENTATION_TAG: Final = 0x0112
PNG_BITS: Final = 24  # where a PNG states the bits of a value
JPEG_PIXELS_PER_BYTE: Final = 8 * 64  # at most: every block of 8 x 8 pixels costs a bit of Huffman code or more

# Our errors say what cv2 would print on top; OPENCV_LOG_LEVEL brings its words back. One line that libpng or libjpeg
# write about a damaged file remains: they go past cv2, straight to the process's stderr.
if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class ImageError(DoctogresError):
    """A picture or mask that cannot be read."""

    code: ClassVar[str] = Reason.UNREADABLE_IMAGE


class TooManyPixelsError(ImageError):
    """The header announces more pixels than this machine was told to decode."""

    code: ClassVar[str] = Reason.TOO_MANY_PIXELS


class ColourModeError(ImageError):
    """The colours are stored in a way that has no faithful conversion to 8-bit RGB."""

    code: ClassVar[str] = Reason.COLOUR_MODE


class CompressionError(ImageError):
    """The file is whole, but compressed in a way that the decoders lack."""

    code: ClassVar[str] = Reason.UNSUPPORTED_COMPRESSION


@dataclass(frozen=True)
class Header:
    """What a file says about itself before it is decoded; width and height are those of the upright picture.

    Attributes:
        kind: a name in READERS.
        mode: Pillow's name of how colours are stored.
        bits: of a value.
        orientation: EXIF 1..8, still to be applied to what is decoded.
        stated_orientation: EXIF 1..8 as the file says it, whoever applies it.
        clear_grey: the value of a grey PNG that is transparent.
        page: the first page of a TIFF.
    """

    kind: str
    width: int
    height: int
    mode: str
    has_alpha: bool
    bits: int
    orientation: int = 1
    stated_orientation: int = 1
    clear_grey: int | None = None
    page: Page | None = None


def _png_is_complete(data: bytes) -> bool:
    """Whether the chunks lead to the end chunk: some decoders return the part of a truncated picture without a word."""
    position: int = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if kind == b"IEND":
            return position <= len(data)
    return False


def _jpeg_is_complete(data: bytes) -> bool:
    return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") > 0


def _decoder_refuses(data: bytes) -> bool:
    """Nothing to look at: the decoder raises where the end is missing."""
    return True


@dataclass(frozen=True)
class Reader:
    """How the files of a format are told from others and read.

    Attributes:
        signatures: a file begins with one of them.
        plugin: Pillow's class for the header; Image.open has a pixel limit of its own, process-wide and lower than ours.
        is_complete: whether a file's end is there; cv2 returns part of some truncated pictures without a word.
    """

    signatures: tuple[bytes, ...]
    plugin: Callable[[IO[bytes]], Image.Image]
    is_complete: Callable[[bytes], bool]


READERS: Final = {
    "PNG": Reader((PNG_SIGNATURE,), PngImagePlugin.PngImageFile, _png_is_complete),
    "JPEG": Reader((b"\xff\xd8",), JpegImagePlugin.JpegImageFile, _jpeg_is_complete),
    "TIFF": Reader((b"II", b"MM"), TiffImagePlugin.TiffImageFile, _decoder_refuses),
}
assert READERS.keys() == FORMATS.keys()


def max_pixels() -> int:
    """The number of pixels above which a picture is refused, from the environment or the default.

    Raises:
        ParameterError: the variable does not hold a whole number above zero.
    """
    return limit_from_environment(MAX_PIXELS_VARIABLE, DEFAULT_MAX_PIXELS, "pixels, for example 400000000")


def source_name(source: Source, name: str) -> str:
    return name or ("the picture" if isinstance(source, bytes) else str(source))


def source_bytes(source: Source, name: str) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise ImageError(
            f"{name} cannot be opened: {error.strerror or error}; check the path and its permissions"
        ) from error


def read_header(data: bytes, name: str) -> Header:
    """Reads the header, and refuses before anything is decoded what is truncated, too large or of an unreadable kind."""
    kind = next((kind for kind, reader in READERS.items() if data.startswith(reader.signatures)), "")
    if not kind:
        what = "is not a picture this project reads" if data else "is empty"
        raise ImageError(f"{name} {what}; give a {FORMAT_NAMES} file")
    try:
        page = _readable_page(data, name) if kind == "TIFF" else None
        header = _header_of(READERS[kind].plugin(io.BytesIO(data)), kind, data, page)
    except TiffError as error:
        raise ImageError(f"{name} is truncated or damaged ({error}); copy or export it again") from error
    except (SyntaxError, OSError, ValueError, struct.error, KeyError, IndexError) as error:
        if isinstance(error, SyntaxError):
            _refuse_by_kind(data, kind, name)
        raise ImageError(f"{name} is truncated or damaged ({len(data)} bytes); give a {FORMAT_NAMES} file") from error
    if header.width * header.height > (limit := max_pixels()):
        raise TooManyPixelsError(
            f"{name} has {header.width} x {header.height} pixels, more than the limit of {limit}; "
            f"raise the environment variable {MAX_PIXELS_VARIABLE} if the machine has the memory"
        )
    if max(header.width, header.height) > MAX_SIDE:
        raise TooManyPixelsError(
            f"{name} has {header.width} x {header.height} pixels, more than the limit of {MAX_SIDE} on a side; crop it"
        )
    if not READERS[kind].is_complete(data):
        raise ImageError(f"{name} is truncated ({len(data)} bytes, its end is missing); copy or export it again")
    if kind == "JPEG" and header.width * header.height > JPEG_PIXELS_PER_BYTE * len(data):
        # The decoder would fill what is missing with grey: gigabytes for a header of some hundred bytes.
        raise ImageError(
            f"{name} is truncated or damaged: {len(data)} bytes are too few for {header.width} x {header.height} pixels; "
            "copy or export it again"
        )
    return header


def _readable_page(data: bytes, name: str) -> Page:
    """The first page of a TIFF, unless the decoders lack its compression or would take it for something else."""
    page = first_page(data)
    scheme = page.number(Tag.COMPRESSION, 1)
    if scheme not in COMPRESSIONS:
        raise CompressionError(
            f"{name} uses TIFF {compression_name(scheme)}, which cannot be read here; save it with deflate or LZW "
            "compression, for example: vips copy IN.tif OUT.tif[compression=deflate]"
        )
    if what := misread(page):
        raise ColourModeError(f"{name} holds {what}, which cannot be read faithfully; save it as 8-bit RGB or grey")
    return page


def _refuse_by_kind(data: bytes, kind: str, name: str) -> None:
    """Refuses a file that the decoders cannot read although its header is sound."""
    what = unusual_jpeg(data) if kind == "JPEG" else ""
    if kind == "TIFF" and (page := first_page(data)).is_plausible:
        what = f"a TIFF of {page}"
    if what:
        raise ColourModeError(f"{name} is {what}, which cannot be read here; save it as 8-bit RGB or grey")


def _header_of(image: Image.Image, kind: str, data: bytes, page: Page | None) -> Header:
    exif = image.info.get("exif")
    # Pillow's size of a TIFF and its pixels are both upright already.
    stated = page.number(Tag.ORIENTATION, 1) if page else _orientation(exif) if isinstance(exif, bytes) else 1
    orientation = 1 if page else stated
    width, height = image.size if orientation < 5 else image.size[::-1]
    clear = image.info.get("transparency")
    has_alpha = image.mode in {"LA", "La", "PA", "RGBA"} or clear is not None
    bits = page.bits if page else data[PNG_BITS] if kind == "PNG" else 8
    return Header(
        *(kind, width, height, image.mode, has_alpha, bits, orientation),
        stated_orientation=stated if 1 <= stated <= 8 else 1,
        clear_grey=clear if isinstance(clear, int) and image.mode != "P" else None,
        page=page,
    )


def _orientation(exif: bytes) -> int:
    tags = Image.Exif()
    try:
        tags.load(exif)
    except (SyntaxError, OSError, ValueError, struct.error):
        return 1  # a damaged tag block says nothing about the pixels
    value = tags.get(ORIENTATION_TAG, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def decode(data: bytes, flags: int, header: Header, name: str) -> Stored:
    """The pixels, not yet upright, as cv2 lays them out for its `flags`.

    Raises:
        ImageError: damaged, or decoded to another size than announced.
    """
    try:
        if header.page:
            stored: Stored | None = first_page_pixels(data, flags, header.page)
        elif header.kind == "PNG" and flags == cv2.IMREAD_UNCHANGED and _is_better_in_pieces(header):
            stored = png_pixels(data)
        else:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
            stored = None if pixels is None else Stored.of(pixels)
    except cv2.error as error:
        raise ImageError(f"{name} cannot be decoded ({error.err or 'cv2'}); export it again as PNG") from error
    except UndecodableError as error:
        raise ColourModeError(f"{name} is {error}, which cannot be read here; save it as 8-bit RGB or grey") from error
    except (SyntaxError, OSError, ValueError, TypeError, OverflowError) as error:
        raise ImageError(f"{name} is damaged inside ({error}, TIFF); copy or export it again") from error
    if stored is None:
        _refuse_by_kind(data, header.kind, name)
        raise ImageError(f"{name} is damaged inside ({len(data)} bytes, {header.kind}); copy or export it again")
    width, height = (stored.width, stored.height) if header.orientation < 5 else (stored.height, stored.width)
    if (width, height) != (header.width, header.height):
        raise ImageError(
            f"{name} is damaged inside: its header announces {header.width} x {header.height} pixels, "
            f"but {width} x {height} were decoded; export it again"
        )
    return stored


def _is_better_in_pieces(header: Header) -> bool:
    return header.width * header.height > LARGE and header.bits <= 8


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undoes the turn that EXIF orientation 1..8 describes; 6 and 8 undo each other, the others themselves."""
    if orientation >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
