"""The only place that decodes pictures: size guard before decoding, colour modes, orientation.

Pillow reads the header (size, mode, orientation); cv2 decodes, and Pillow most TIFFs, outside the interpreter lock.
Every function takes a path or the bytes of a file, so that a caller that hashes a file reads it once.
"""

import io
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from doctogres.errors import DoctogresError
from doctogres.limits import limit_from_environment

Source = Path | bytes
Pixels = NDArray[np.integer[Any] | np.floating[Any]]  # what cv2 decodes, or part of it

MAX_PIXELS_VARIABLE: Final = "DOCTOGRES_MAX_PIXELS"
DEFAULT_MAX_PIXELS: Final = 200_000_000
PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
ORIENTATION_TAG: Final = 0x0112
BITS_TAG: Final = 258
JPEG_MASK_TOLERANCE: Final = 32  # how far compression moves a pixel of a binary mask from 0 or 255
JPEG_PIXELS_PER_BYTE: Final = 8 * 64  # at most: every block of 8 x 8 pixels costs a bit of Huffman code or more
ROWS_AT_ONCE: Final = 256

# Our errors say what cv2 would print on top; OPENCV_LOG_LEVEL brings its words back. One line that libpng or libjpeg
# write about a damaged file remains: they go past cv2, straight to the process's stderr.
if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class ImageError(DoctogresError):
    """A picture or mask that cannot be read."""

    code: ClassVar[str] = "unreadable_image"


class TooManyPixelsError(ImageError):
    """The header announces more pixels than this machine was told to decode."""

    code: ClassVar[str] = "too_many_pixels"


class ColourModeError(ImageError):
    """The colours are stored in a way that has no faithful conversion to 8-bit RGB."""

    code: ClassVar[str] = "colour_mode"


class MaskValueError(ImageError):
    """The mask is not binary."""

    code: ClassVar[str] = "mask_values"


@dataclass(frozen=True)
class Header:
    """What a file says about itself before it is decoded; width and height are those of the upright picture."""

    kind: str  # PNG, JPEG or TIFF
    width: int
    height: int
    mode: str  # Pillow's name
    has_alpha: bool
    orientation: int  # EXIF 1..8, still to be applied to what cv2 decodes


class _FirstPage(TiffImagePlugin.TiffImageFile):
    """Pillow's reader without its own pixel limit, and without its walk through all pages, endless in a hostile file."""

    @property
    def is_animated(self) -> bool:
        return False

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.new(self.mode, self._tile_size, None).im
        super().load_prepare()


def read_rgb(source: Source, *, name: str = "") -> NDArray[np.uint8]:
    """The upright picture as 8-bit RGB, (height, width, 3).

    Grey and palette pictures become RGB, 16 bits become 8, transparency is laid on white. CMYK, floating-point and
    other modes without a faithful conversion are refused.

    Raises:
        ImageError: or one of its subclasses, naming the file (`name`, or else the path).
    """
    name = _name(source, name)
    data = _bytes(source, name)
    header = _header(data, name)
    if header.mode not in {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "I;16B"}:
        raise ColourModeError(
            f"{name} stores its colours as {header.mode}, which has no faithful conversion; save it as 8-bit RGB"
        )
    flags = cv2.IMREAD_UNCHANGED if header.has_alpha else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = _decode(data, flags, header, name)
    if header.has_alpha:
        pixels = _on_white(pixels, name)
    return np.ascontiguousarray(_upright(pixels, header.orientation), dtype=np.uint8)


def read_mask(source: Source, *, name: str = "") -> NDArray[np.bool_]:
    """The upright mask, (height, width), true on lesions.

    Accepted are 0/255 and 0/1 (grey, 16-bit or as bits), two colours of which one is black (palette, RGB, RGBA), and a
    JPEG whose pixels lie near 0 or 255.

    Raises:
        MaskValueError: the values are anything else; the message says what they are.
        ImageError: the file cannot be read.
    """
    name = _name(source, name)
    data = _bytes(source, name)
    header = _header(data, name)
    pixels = _decode(data, cv2.IMREAD_UNCHANGED, header, name)
    if pixels.ndim == 3:
        pixels = _without_alpha(pixels, name)
    lesion = _colour_lesion(pixels, header, name) if pixels.ndim == 3 else _grey_lesion(pixels, header, name)
    return np.ascontiguousarray(_upright(lesion, header.orientation), dtype=np.bool_)


def picture_size(source: Source, *, name: str = "") -> tuple[int, int]:
    """Width and height of the upright picture, from the header alone.

    Raises:
        ImageError: not a picture, or larger than the limit.
    """
    name = _name(source, name)
    header = _header(_bytes(source, name), name)
    return header.width, header.height


def encode_png(array: NDArray[np.uint8] | NDArray[np.bool_]) -> bytes:
    """The PNG file of an RGB picture (height, width, 3), a grey picture or a mask (height, width)."""
    pixels: NDArray[np.uint8] = array.astype(np.uint8) * 255 if array.dtype == np.bool_ else array.astype(np.uint8)
    if pixels.ndim == 3:
        pixels = np.ascontiguousarray(pixels[..., ::-1])
    done, encoded = cv2.imencode(".png", pixels)
    if not done:
        raise ImageError(f"an array of shape {array.shape} cannot be written as PNG; give (height, width[, 3])")
    return encoded.tobytes()


def max_pixels() -> int:
    """The number of pixels above which a picture is refused, from the environment or the default.

    Raises:
        ParameterError: the variable does not hold a whole number above zero.
    """
    return limit_from_environment(MAX_PIXELS_VARIABLE, DEFAULT_MAX_PIXELS, "pixels, for example 400000000")


def _name(source: Source, name: str) -> str:
    return name or ("the picture" if isinstance(source, bytes) else str(source))


def _bytes(source: Source, name: str) -> bytes:
    if isinstance(source, bytes):
        return source
    try:
        return source.read_bytes()
    except OSError as error:
        raise ImageError(
            f"{name} cannot be opened: {error.strerror or error}; check the path and its rights"
        ) from error


def _header(data: bytes, name: str) -> Header:
    """Reads the header and refuses a picture that is truncated or too large, before anything is decoded."""
    try:
        header = _png_header(data) if data.startswith(PNG_SIGNATURE) else _other_header(data)
    except (SyntaxError, OSError, ValueError, struct.error, KeyError, IndexError) as error:
        raise ImageError(f"{name} {_what_it_is(data)}; give a PNG, JPEG or TIFF file") from error
    if header.width * header.height > (limit := max_pixels()):
        raise TooManyPixelsError(
            f"{name} has {header.width} x {header.height} pixels, more than the limit of {limit}; "
            f"raise the environment variable {MAX_PIXELS_VARIABLE} if the machine has the memory"
        )
    if (header.kind == "PNG" and not _png_is_complete(data)) or (header.kind == "JPEG" and not _jpeg_is_complete(data)):
        raise ImageError(f"{name} is truncated ({len(data)} bytes, its end is missing); copy or export it again")
    if header.kind == "JPEG" and header.width * header.height > JPEG_PIXELS_PER_BYTE * len(data):
        # The decoder would fill what is missing with grey: gigabytes for a header of some hundred bytes.
        raise ImageError(
            f"{name} is truncated or damaged: {len(data)} bytes are too few for {header.width} x {header.height} pixels; "
            "copy or export it again"
        )
    return header


def _png_header(data: bytes) -> Header:
    # The plugin's class and not Image.open: the latter has a pixel limit of its own, process-wide and lower than ours.
    return _header_of(PngImagePlugin.PngImageFile(io.BytesIO(data)), "PNG")


def _other_header(data: bytes) -> Header:
    if data.startswith(b"\xff\xd8"):
        return _header_of(JpegImagePlugin.JpegImageFile(io.BytesIO(data)), "JPEG")
    return _header_of(TiffImagePlugin.TiffImageFile(io.BytesIO(data)), "TIFF")


def _header_of(image: Image.Image, kind: str) -> Header:
    exif = image.info.get("exif")
    # Pillow's size of a TIFF and cv2's pixels are both upright already.
    orientation = _orientation(exif) if isinstance(exif, bytes) and kind != "TIFF" else 1
    width, height = image.size if orientation < 5 else image.size[::-1]
    has_alpha = image.mode in {"LA", "PA", "RGBA"} or "transparency" in image.info
    return Header(kind, width, height, image.mode, has_alpha, orientation)


def _orientation(exif: bytes) -> int:
    tags = Image.Exif()
    try:
        tags.load(exif)
    except (SyntaxError, OSError, ValueError, struct.error):
        return 1  # a damaged tag block says nothing about the pixels
    value = tags.get(ORIENTATION_TAG, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _what_it_is(data: bytes) -> str:
    if not data:
        return "is empty"
    known = data.startswith((PNG_SIGNATURE, b"\xff\xd8", b"II", b"MM"))
    return f"is truncated or damaged ({len(data)} bytes)" if known else "is not a picture this project reads"


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


def _decode(data: bytes, flags: int, header: Header, name: str) -> Pixels:
    try:
        tiff = _tiff_pixels(data, flags) if header.kind == "TIFF" else None
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if tiff is None else tiff
    except cv2.error as error:
        raise ImageError(f"{name} cannot be decoded ({error.err or 'cv2'}); export it again as PNG") from error
    except (SyntaxError, OSError, ValueError, TypeError, OverflowError) as error:
        raise ImageError(f"{name} is damaged inside ({error}, TIFF); copy or export it again") from error
    if pixels is None:
        raise ImageError(f"{name} is damaged inside ({len(data)} bytes, {header.kind}); copy or export it again")
    height, width = pixels.shape[:2] if header.orientation < 5 else pixels.shape[1::-1]
    if (width, height) != (header.width, header.height):
        raise ImageError(
            f"{name} is damaged inside: its header announces {header.width} x {header.height} pixels, "
            f"but {width} x {height} were decoded; export it again"
        )
    return pixels


def _tiff_pixels(data: bytes, flags: int) -> Pixels | None:
    """A TIFF laid out as cv2 would; None for an unchanged one of more than 8 bits and not grey, which Pillow narrows.

    cv2 returns what it could decode of damaged compressed data, without a word. Pillow raises, takes less time, and
    knows alpha from colours multiplied by it.
    """
    image = _FirstPage(io.BytesIO(data))
    unchanged = flags == cv2.IMREAD_UNCHANGED
    if image.mode in {"I;16", "I;16B"}:
        deep = np.asarray(image, dtype=np.uint16)
        return deep if unchanged else cv2.cvtColor((deep >> 8).astype(np.uint8), cv2.COLOR_GRAY2RGB)
    if unchanged and max(image.tag_v2.get(BITS_TAG, (1,))) > 8:
        return None
    if image.mode in {"1", "L"}:
        grey = np.asarray(image, dtype=np.uint8) * (255 if image.mode == "1" else 1)
        return grey if unchanged else cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
    if unchanged and image.mode in {"LA", "PA", "RGBA"}:
        return cv2.cvtColor(np.asarray(image.convert("RGBA")), cv2.COLOR_RGBA2BGRA)
    colours = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    return colours[..., ::-1] if unchanged else colours


def _upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undoes the turn that EXIF orientation 1..8 describes."""
    if orientation >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _on_white(pixels: Pixels, name: str) -> Pixels:
    """BGRA of 8 or 16 bits to 8-bit RGB, transparency laid on white."""
    if pixels.ndim != 3 or pixels.shape[2] != 4:  # grey with one value that is transparent
        raise ColourModeError(f"{name} is grey with a transparent value; save it as 8-bit RGB")
    if pixels.dtype == np.uint8 and pixels[..., 3].min() == 255:
        return cv2.cvtColor(pixels.astype(np.uint8, copy=False), cv2.COLOR_BGRA2RGB)
    scale = 257 if pixels.dtype == np.uint16 else 1
    laid = np.empty((*pixels.shape[:2], 3), np.uint8)
    for top in range(0, len(pixels), ROWS_AT_ONCE):  # the whole picture as float32 would be four times its size
        values = pixels[top : top + ROWS_AT_ONCE].astype(np.float32) / scale
        alpha = values[..., 3:] / 255
        laid[top : top + ROWS_AT_ONCE] = np.round(values[..., 2::-1] * alpha + 255 * (1 - alpha))
    return laid


def _without_alpha(pixels: Pixels, name: str) -> Pixels:
    """Drops a fourth channel and folds equal colour channels into one, (height, width) or (height, width, 3)."""
    if pixels.shape[2] == 4:
        alpha, pixels = pixels[..., 3], pixels[..., :3]
        if alpha.min() != alpha.max() and (pixels == pixels[0, 0]).all():
            raise MaskValueError(f"{name} has one colour and holds its lesions as transparency; save it as 0/255")
    first = pixels[..., 0]
    equal = np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2])
    return first if equal else pixels


def _grey_lesion(pixels: Pixels, header: Header, name: str) -> NDArray[np.bool_]:
    if pixels.dtype not in (np.uint8, np.uint16):
        raise MaskValueError(f"{name} stores {pixels.dtype} values; save the mask as 8-bit 0/255")
    lesion = np.asarray(pixels != 0)
    highest = pixels.max()
    one_value = cv2.countNonZero(cv2.inRange(pixels, 1, int(highest) - 1)) == 0  # above zero
    if one_value and (highest in (0, 1, 255, 65535) or header.mode == "P"):
        return lesion
    if header.kind == "JPEG" and pixels.dtype == np.uint8 and _is_near_binary(pixels):
        return np.asarray(pixels.astype(np.uint8) > 127)
    values = np.unique(pixels)
    raise MaskValueError(
        f"{name} is not binary: it holds {len(values)} different values ({_some(values)}); "
        "save the mask with 0 for background and 255 for lesions"
    )


def _is_near_binary(pixels: Pixels) -> bool:
    between = cv2.inRange(pixels, JPEG_MASK_TOLERANCE + 1, 255 - JPEG_MASK_TOLERANCE - 1)
    return cv2.countNonZero(between) <= 0.1 * between.size


def _colour_lesion(pixels: Pixels, header: Header, name: str) -> NDArray[np.bool_]:
    """True where a picture of two colours, one of them black, is not black."""
    lesion = pixels.any(axis=2)
    colours = pixels[lesion]
    if (colours == colours[0]).all():
        return np.asarray(lesion)
    if header.kind == "JPEG":
        grey = cv2.cvtColor(pixels.astype(np.uint8), cv2.COLOR_BGR2GRAY)
        return _grey_lesion(grey, header, name)
    raise MaskValueError(
        f"{name} is not binary: it holds more than two colours; save the mask with 0 for background and 255 for lesions"
    )


def _some(values: Pixels) -> str:
    shown = ", ".join(str(value) for value in values[:6].tolist())
    return shown if len(values) <= 6 else f"{shown}, ... {values[-1]}"
