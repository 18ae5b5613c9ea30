"""Masks: the lesions of a file, true or false for each pixel; and a picture together with its mask."""

import io
from typing import ClassVar, Final, NamedTuple

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
from doctogres.slides.images import read_rgb
from doctogres.slides.plausibility import better_fit
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


class OrientationError(ImageError):
    """Picture and mask state different orientations, and neither size nor tissue says how the mask lies."""

    code: ClassVar[str] = Reason.MASK_ORIENTATION


class MarkedSlide(NamedTuple):
    """A picture with its mask.

    Attributes:
        rgb: (height, width, 3).
        mask: (height, width), true on lesions.
        note: a reason to look at the pair, empty where there is none.
    """

    rgb: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    note: str = ""


def read_with_mask(picture: Source, mask: Source, *, name: str = "", mask_name: str = "") -> MarkedSlide:
    """A picture and its mask, both upright; see `read_rgb` and `read_mask`.

    Where the files state different EXIF orientations, the mask may have been drawn on the picture's stored pixels or on
    the upright picture. The sizes decide, else the tissue; the note says how the mask was then laid.

    Raises:
        SizeMismatchError: they differ in size, which the headers say before anything is decoded.
        OrientationError: they state different orientations, and nothing says how the mask lies.
        ImageError: one of the two cannot be read.
    """
    name, mask_name = source_name(picture, name), source_name(mask, mask_name)
    picture, mask = source_bytes(picture, name), source_bytes(mask, mask_name)
    header, of_mask = read_header(picture, name), read_header(mask, mask_name)
    size, of_both = (header.width, header.height), (header.stated_orientation, of_mask.stated_orientation)
    sizes = [(of_mask.width, of_mask.height)]
    if of_both[0] != of_both[1]:
        lies = (of_both[0] >= 5) != (of_both[1] >= 5)
        sizes.append((of_mask.height, of_mask.width) if lies else sizes[0])
    if size not in sizes:
        raise SizeMismatchError(
            f"{mask_name} has {of_mask.width} x {of_mask.height} pixels, {name} {header.width} x {header.height}; "
            "give the mask of this picture"
        )
    rgb, lesion = read_rgb(picture, name=name), read_mask(mask, name=mask_name)
    return MarkedSlide(rgb, lesion) if len(sizes) == 1 else _laid(rgb, lesion, of_both, name, mask_name)


def _laid(
    rgb: NDArray[np.uint8], lesion: NDArray[np.bool_], orientations: tuple[int, int], name: str, mask_name: str
) -> MarkedSlide:
    """The slide with its mask laid on the upright picture as drawn, or turned as the picture's stored pixels are.

    Args:
        rgb: the upright picture.
        lesion: the mask, upright by its own orientation.
        orientations: EXIF 1..8 that picture and mask state.
        name: of the picture.
        mask_name: of the mask.
    """
    of_picture, of_mask = orientations
    stored = upright(lesion, {6: 8, 8: 6}.get(of_mask, of_mask))
    turned = np.ascontiguousarray(upright(stored, of_picture))
    if turned.shape != rgb.shape[:2] or np.array_equal(lesion, turned):
        return MarkedSlide(rgb, lesion)  # drawn on the upright picture
    stated = f"{name} states EXIF orientation {of_picture} and {mask_name} {of_mask}"
    better, why = 1, "only so their sizes agree"
    if lesion.shape == turned.shape:
        fitting, why = better_fit(rgb, lesion, turned), "so it fits the tissue better"
        if fitting is None:
            raise OrientationError(
                f"{stated}, and the tissue does not tell how the mask lies; save both upright, without an orientation"
            )
        better = fitting
    laid = ("as it is", "turned like the picture")[better]
    problem = f"{stated}; the mask was laid {laid}, because {why}"
    return MarkedSlide(rgb, (lesion, turned)[better], Reason.MASK_ORIENTATION.because(problem=problem))


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
