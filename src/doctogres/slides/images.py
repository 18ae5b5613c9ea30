"""Pictures: the upright 8-bit RGB of a file, and PNG files of arrays.

Every function takes a path or the bytes of a file, so that a caller that hashes a file reads it once.
"""

import base64
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from doctogres.slides.depth import bits_used
from doctogres.slides.formats import (
    ColourModeError,
    Header,
    ImageError,
    Source,
    read_header,
    source_bytes,
    source_name,
    upright,
)
from doctogres.slides.tiff_pages import check_one_picture, parts_of
from doctogres.slides.tiff_pixels import Pixels

ROWS_AT_ONCE: Final = 256
MODES: Final = frozenset(("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "I;16", "I;16B"))
MODE_NAMES: Final = {"F": "F (32-bit floating-point numbers)", "I": "I (signed or 32-bit integers)"}


def read_rgb(source: Source, *, name: str = "") -> NDArray[np.uint8]:
    """The upright picture as 8-bit RGB, (height, width, 3).

    Grey and palette pictures become RGB, transparency is laid on white. Of 16 bits the upper 8 of those that are used
    remain (see `depth`). Three grey pages of a TIFF are red, green and blue.

    Raises:
        ColourModeError: CMYK, floating-point and other colours without a faithful conversion.
        BitDepthError: 16-bit values of which it is not certain how many bits they use.
        PagesError: a TIFF of several pages that are not certainly one picture.
        CompressionError: a TIFF's compression cannot be read.
        ImageError: any of these, or the file is damaged; the message names it (`name`, or else the path).
    """
    name = source_name(source, name)
    data = source_bytes(source, name)
    header = read_header(data, name)
    if header.mode not in MODES:
        mode = MODE_NAMES.get(header.mode, header.mode)
        raise ColourModeError(
            f"{name} stores its colours as {mode}, which has no faithful conversion; save it as 8-bit RGB"
        )
    parts = parts_of(data, header, name)
    check_one_picture(parts, name)
    as_stored = header.has_alpha or header.bits > 8 or len(parts.full) > 1
    flags = cv2.IMREAD_UNCHANGED if as_stored else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pages = [part.decode(flags, name) for part in parts.full]
    parts.check_copies(pages[0], lambda part: part.decode(flags, name), name)
    pixels = pages[0] if len(pages) == 1 else np.dstack(pages[::-1])  # cv2's order is blue, green, red
    if as_stored:
        pixels = _eight_bit_rgb(pixels, data, header, name)
    return np.ascontiguousarray(upright(pixels, header.orientation), dtype=np.uint8)


def picture_size(source: Source, *, name: str = "") -> tuple[int, int]:
    """Width and height of the upright picture, from the header alone.

    Raises:
        ImageError: not a picture, or larger than the limit.
    """
    name = source_name(source, name)
    header = read_header(source_bytes(source, name), name)
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


def encode_jpeg(rgb: NDArray[np.uint8], quality: int) -> bytes:
    """The JPEG file of an RGB picture (height, width, 3), for a page."""
    return cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def data_address(file: bytes, kind: str) -> str:
    """The address of an encoded picture (png, jpeg) that a page holds itself."""
    return f"data:image/{kind};base64,{base64.b64encode(file).decode()}"


def _eight_bit_rgb(pixels: Pixels, data: bytes, header: Header, name: str) -> NDArray[np.uint8]:
    """What a file stores, grey, BGR or BGRA of 8 or 16 bits, as 8-bit RGB."""
    if header.has_alpha and (pixels.ndim != 3 or pixels.shape[2] != 4):  # grey with one value that is transparent
        raise ColourModeError(f"{name} is grey with a transparent value; save it as 8-bit RGB")
    if pixels.dtype == np.uint8:
        if header.has_alpha:
            return _on_white(pixels, 8)
    else:
        deep = pixels.astype(np.uint16, copy=False)
        bits = bits_used(deep if deep.ndim == 2 else deep[..., :3], data, header, name)
        if header.has_alpha:
            return _on_white(deep, bits)
        pixels = (deep >> (bits - 8)).astype(np.uint8)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB), np.uint8)


def _on_white(pixels: Pixels, bits: int) -> NDArray[np.uint8]:
    """BGRA of so many bits to 8-bit RGB, transparency laid on white."""
    if pixels.dtype == np.uint8 and pixels[..., 3].min() == 255:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB), np.uint8)
    full = 2**bits - 1
    opaque = full if pixels[..., 3].max() <= full else 2**16 - 1  # alpha has the colours' bits, or all
    laid = np.empty((*pixels.shape[:2], 3), np.uint8)
    for top in range(0, len(pixels), ROWS_AT_ONCE):  # the whole picture as float32 would be four times its size
        values = pixels[top : top + ROWS_AT_ONCE].astype(np.float32)
        alpha = values[..., 3:] / opaque
        laid[top : top + ROWS_AT_ONCE] = np.round(values[..., 2::-1] * (255 / full) * alpha + 255 * (1 - alpha))
    return laid
