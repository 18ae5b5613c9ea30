"""Masks: the lesions of a file, true or false for each pixel; and a picture together with its mask."""

import io
from typing import ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin

from doctogres.errors import listed
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
from doctogres.slides.images import picture_size, read_rgb
from doctogres.slides.reasons import Reason
from doctogres.slides.tiff_pages import PagesError, Part, parts_of
from doctogres.slides.tiff_pixels import FirstPage, Pixels

JPEG_MASK_TOLERANCE: Final = 32  # how far compression moves a pixel of a binary mask from 0 or 255


UNFAITHFUL_MODES: Final = frozenset(("CMYK", "LAB", "YCbCr"))
IN_BLACK_AND_WHITE: Final = "save it with 0 for background and 255 for lesions, without transparency"


class MaskValueError(ImageError):
    """The mask is not binary."""

    code: ClassVar[str] = Reason.MASK_VALUES


class SizeMismatchError(ImageError):
    """Picture and mask differ in size."""

    code: ClassVar[str] = Reason.SIZE_MISMATCH


def read_with_mask(
    picture: Source, mask: Source, *, name: str = "", mask_name: str = ""
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A picture, (height, width, 3), and its mask, (height, width), both upright; see `read_rgb` and `read_mask`.

    Raises:
        SizeMismatchError: they differ in size, which the headers say before anything is decoded.
        ImageError: one of the two cannot be read.
    """
    name, mask_name = source_name(picture, name), source_name(mask, mask_name)
    picture, mask = source_bytes(picture, name), source_bytes(mask, mask_name)
    width, height = picture_size(picture, name=name)
    across, down = picture_size(mask, name=mask_name)
    if (across, down) != (width, height):
        raise SizeMismatchError(
            f"{mask_name} has {across} x {down} pixels, {name} {width} x {height}; give the mask of this picture"
        )
    return read_rgb(picture, name=name), read_mask(mask, name=mask_name)


def read_mask(source: Source, *, name: str = "") -> NDArray[np.bool_]:
    """The upright mask, (height, width), true on lesions.

    Accepted are 0 and 1 or white (grey, 16-bit or as bits), two colours of which one is black (palette, RGB, RGBA), a
    drawing on a transparent ground, two indices of a palette of one colour, and a JPEG whose pixels lie near 0 or 255.
    The pages of a TIFF are joined.

    Raises:
        MaskValueError: the values are anything else, or may mean the opposite; the message says what they are.
        PagesError: a TIFF's pages differ in size, or together mark every pixel.
        ImageError: the file cannot be read.
    """
    name = source_name(source, name)
    data = source_bytes(source, name)
    header = read_header(data, name)
    if header.mode in UNFAITHFUL_MODES:
        raise ColourModeError(f"{name} stores its colours as {header.mode}; save it as 8-bit grey")
    parts = parts_of(data, header, name)
    lesion = _page_lesion(parts.full[0], name)
    parts.check_copies(lesion, lambda part: _page_lesion(part, name), name)
    if len(parts.full) > 1:
        lesion = _union(lesion, parts.full[1:], name)
    return np.ascontiguousarray(upright(lesion, header.orientation), dtype=np.bool_)


def _union(lesion: NDArray[np.bool_], others: tuple[Part, ...], name: str) -> NDArray[np.bool_]:
    """The lesions of all pages, unless one page seems to be the background of the others."""
    whole_page = lesion.all()
    for part in others:
        more = _page_lesion(part, name)
        whole_page |= more.all()
        lesion = lesion | more
    if lesion.all() and not whole_page:
        raise PagesError(
            f"{name} has {len(others) + 1} pages that together mark every pixel; leave out the page of the background"
        )
    return lesion


def _page_lesion(part: Part, name: str) -> NDArray[np.bool_]:
    """The lesions of a file's only page, as stored."""
    pixels = part.decode(cv2.IMREAD_UNCHANGED, name)
    header = part.header
    if header.clear_grey is not None and pixels.ndim == 2:
        # cv2 widens fewer bits to a byte, and Pillow the value that is transparent only if it is one bit.
        clear = header.clear_grey * (1 if header.bits in (1, 8, 16) else 255 // (2**header.bits - 1))
        pixels = np.dstack([pixels, pixels, pixels, np.where(pixels == clear, 0, 255).astype(pixels.dtype)])
    colours = pixels if pixels.ndim == 2 else pixels[..., :3]
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        alpha = pixels[..., 3]
        if alpha.min() != alpha.max():
            return _opaque_lesion(colours, alpha, header, name)
        if not alpha.any() and colours.any():
            raise MaskValueError(f"{name} is transparent everywhere, but not black; {IN_BLACK_AND_WHITE}")
    if header.mode == "P" and (colours == colours[0, 0]).all():
        return _indexed_lesion(part, colours, name)
    return _coloured_lesion(colours, header, name)


def _opaque_lesion(colours: Pixels, alpha: Pixels, header: Header, name: str) -> NDArray[np.bool_]:
    """The lesions of BGR pixels of which some are transparent: what is drawn on the transparent ground.

    Where the colours alone say the same, or leave it to the transparency, it is certain. A drawing that covers more than
    half of the picture, in black or in the colour of what is hidden, may be the background with the lesions cut out.
    """
    opaque = np.asarray(alpha != 0)
    if opaque.all() or (alpha[opaque] != alpha.max()).any():
        raise MaskValueError(f"{name} has {len(np.unique(alpha))} degrees of transparency; {IN_BLACK_AND_WHITE}")
    drawn, ground = colours[opaque], colours[~opaque]
    one_colour, black_ground = bool((drawn == drawn[0]).all()), not ground.any()
    if one_colour and ((black_ground and drawn[0].any()) or opaque.mean() <= 0.5):
        return opaque
    if one_colour:
        raise MaskValueError(
            f"{name} is opaque over {opaque.mean():.0%} of the picture, in one colour: the lesions or the background; "
            f"{IN_BLACK_AND_WHITE}"
        )
    if not black_ground:
        raise MaskValueError(f"{name} has several colours, and others where it is transparent; {IN_BLACK_AND_WHITE}")
    return _coloured_lesion(colours, header, name)


def _indexed_lesion(part: Part, colours: Pixels, name: str) -> NDArray[np.bool_]:
    """The lesions of a palette of one colour: index 0 and another one, or else what the colour says."""
    plugin = FirstPage if part.header.page else PngImagePlugin.PngImageFile
    try:
        indices = np.asarray(plugin(io.BytesIO(part.data)))
    except (SyntaxError, OSError, ValueError) as error:
        raise ImageError(f"{name} is damaged inside ({error}); copy or export it again") from error
    used = np.unique(indices)
    if len(used) == 1:
        return _coloured_lesion(colours, part.header, name)
    if len(used) == 2 and used[0] == 0:
        return np.asarray(indices != 0)
    raise MaskValueError(
        f"{name} has a palette of one colour and {len(used)} indices ({listed(used.tolist())}); {IN_BLACK_AND_WHITE}"
    )


def _coloured_lesion(pixels: Pixels, header: Header, name: str) -> NDArray[np.bool_]:
    """The lesions of grey or BGR pixels; equal colour channels count as one."""
    if pixels.ndim == 2:
        return _grey_lesion(pixels, header, name)
    first = pixels[..., 0]
    if np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2]):
        return _grey_lesion(first, header, name)
    return _colour_lesion(pixels, header, name)


def _grey_lesion(pixels: Pixels, header: Header, name: str) -> NDArray[np.bool_]:
    if pixels.dtype not in (np.uint8, np.uint16):
        raise MaskValueError(f"{name} stores {pixels.dtype} values; save the mask as 8-bit 0/255")
    lesion = np.asarray(pixels != 0)
    highest = int(pixels.max())
    one_value = cv2.countNonZero(cv2.inRange(pixels, 1, highest - 1)) == 0  # above zero
    white = highest >= 255 and highest & (highest + 1) == 0  # of 8 to 16 bits
    if one_value and (highest in (0, 1) or white or header.mode == "P"):
        return lesion
    if header.kind == "JPEG" and pixels.dtype == np.uint8 and _is_near_binary(pixels):
        return np.asarray(pixels.astype(np.uint8) > 127)
    values = np.unique(pixels)
    raise MaskValueError(
        f"{name} is not binary: it holds {len(values)} different values from {values[0]} to {values[-1]} "
        f"({listed(values.tolist())}); "
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
