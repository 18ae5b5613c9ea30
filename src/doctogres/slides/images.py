"""Pictures: the upright 8-bit RGB of a file, and PNG files of arrays.

Every function takes a path or the bytes of a file, so that a caller that hashes a file reads it once.
"""

import base64
from typing import ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from doctogres.slides.bands import Pixels, bands
from doctogres.slides.costs import check_cost
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
from doctogres.slides.reasons import Reason
from doctogres.slides.tiff_pages import check_one_picture, parts_of

MODES: Final = frozenset(("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "I;16", "I;16B"))
MODE_NAMES: Final = {"F": "F (32-bit floating-point numbers)", "I": "I (signed or 32-bit integers)"}
ALMOST_OPAQUE, HALF_OPAQUE = 0.98, 0.5  # below the first, laying on white changes a colour visibly
DIFFERENT: Final = 40  # grey levels from the commonest colour that is transparent; glass stays within
CHANGED_SHARE: Final = 0.01  # of the picture
HIDDEN_SHARE: Final = 0.1  # of what is drawn; the soft edge of a cut-out is less than half hidden
SAMPLED_PIXELS: Final = 100_000


class TransparencyError(ImageError):
    """A picture is hidden by its own alpha channel."""

    code: ClassVar[str] = Reason.TRANSPARENCY


def read_rgb(source: Source, *, name: str = "") -> NDArray[np.uint8]:
    """The upright picture as 8-bit RGB, (height, width, 3).

    Grey and palette pictures become RGB, transparency is laid on white. Of 16 bits the upper 8 of those that are used
    remain (see `depth`). Three grey pages of a TIFF are red, green and blue.

    Raises:
        ColourModeError: CMYK, floating-point and other colours without a faithful conversion.
        BitDepthError: 16-bit values of which it is not certain how many bits they use.
        PagesError: a TIFF of several pages that are not certainly one picture.
        TransparencyError: what is transparent holds a picture.
        CompressionError: a TIFF's compression cannot be read.
        ImageError: any of these, or the file is damaged; the message names it (`name`, or else the path).
    """
    name = source_name(source, name)
    data = source_bytes(source, name)
    header = read_header(data, name)
    check_mode(header, name, "RGB")
    parts = parts_of(data, header, name)
    check_one_picture(parts, name)
    check_cost(data, parts, name, mask=False)
    as_stored = header.has_alpha or header.bits > 8 or len(parts.full) > 1
    flags = cv2.IMREAD_UNCHANGED if as_stored else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pages = [part.decode(flags, name).whole() for part in parts.full]
    parts.check_copies(pages[0], lambda part: part.decode(flags, name).whole(), name)
    pixels = pages[0] if len(pages) == 1 else np.dstack(pages[::-1])  # cv2's order is blue, green, red
    if as_stored:
        pixels = _eight_bit_rgb(pixels, data, header, name)
    return np.ascontiguousarray(upright(pixels, header.orientation), dtype=np.uint8)


def check_mode(header: Header, name: str, remedy: str) -> None:
    """Refuses colours without a faithful conversion to 8-bit `remedy`, before they are decoded.

    Raises:
        ColourModeError: it stores such colours.
    """
    if header.mode not in MODES:
        mode = MODE_NAMES.get(header.mode, header.mode)
        raise ColourModeError(
            f"{name} stores its colours as {mode}, which has no faithful conversion; save it as 8-bit {remedy}"
        )


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
            return _on_white(pixels, 8, name)
    else:
        deep = pixels.astype(np.uint16, copy=False)
        bits = bits_used(deep if deep.ndim == 2 else deep[..., :3], data, header, name)
        if header.has_alpha:
            return _on_white(deep, bits, name)
        pixels = (deep >> (bits - 8)).astype(np.uint8)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB), np.uint8)


def _on_white(pixels: Pixels, bits: int, name: str) -> NDArray[np.uint8]:
    """BGRA of so many bits to 8-bit RGB, transparency laid on white.

    Raises:
        TransparencyError: what is transparent is more than one flat colour or glass.
    """
    if pixels.dtype == np.uint8 and pixels[..., 3].min() == 255:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB), np.uint8)
    full = 2**bits - 1
    opaque = full if pixels[..., 3].max() <= full else 2**16 - 1  # alpha has the colours' bits, or all
    ground = _commonest(pixels, pixels[..., 3] < opaque * ALMOST_OPAQUE) * (255 / full)
    drawn = changed = hidden = 0  # pixels that differ from the ground: all, those that transparency changes, and hides
    laid = np.empty((*pixels.shape[:2], 3), np.uint8)
    for rows in bands(pixels.shape[1], len(pixels)):  # the whole picture as float32 would be four times its size
        values = pixels[rows].astype(np.float32)
        colours, alpha = values[..., 2::-1] * (255 / full), values[..., 3:] / opaque
        laid[rows] = np.round(colours * alpha + 255 * (1 - alpha))
        visible = alpha[..., 0][np.abs(colours - ground).max(axis=2) > DIFFERENT]
        drawn += len(visible)
        changed += int(np.count_nonzero(visible < ALMOST_OPAQUE))
        hidden += int(np.count_nonzero(visible < HALF_OPAQUE))
    if changed > CHANGED_SHARE * laid[..., 0].size or hidden > HIDDEN_SHARE * drawn:
        raise TransparencyError(
            f"{name} is transparent where its colours hold a picture, {changed / laid[..., 0].size:.1%} of its area; save "
            "it as RGB without transparency, showing or painting over what is hidden"
        )
    return laid


def _commonest(pixels: Pixels, where: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The median RGB of the chosen pixels of a BGRA picture, from a sample of them."""
    places = np.flatnonzero(where)
    if not len(places):
        return np.zeros(3, np.float32)
    sample = pixels.reshape(-1, 4)[places[:: len(places) // SAMPLED_PIXELS + 1], 2::-1]
    return np.asarray(np.median(sample, axis=0), np.float32)
