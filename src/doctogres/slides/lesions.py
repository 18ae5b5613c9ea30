"""Which colours of a mask mean a lesion: its colours are counted first, and then its pixels are told apart by them.

Both walks take a band of rows at a time, so that a mask of 100 million pixels takes little more memory than its pixels.
"""

import io
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import PngImagePlugin

from doctogres.errors import listed
from doctogres.slides.bands import Pixels, Stored
from doctogres.slides.formats import Header, ImageError
from doctogres.slides.reasons import Reason
from doctogres.slides.tiff_pages import Part
from doctogres.slides.tiff_pixels import FirstPage, in_pieces

JPEG_MASK_TOLERANCE: Final = 32  # how far compression moves a pixel of a binary mask from 0 or 255
MOST_COLOURS: Final = 4096  # a mask has two, and more are counted only for the message
IN_BLACK_AND_WHITE: Final = "save it with 0 for background and 255 for lesions, without transparency"
HIDDEN: Final = 1  # the code of any colour that is transparent, except black

Chosen = NDArray[np.bool_]


class MaskValueError(ImageError):
    """The mask is not binary."""

    code: ClassVar[str] = Reason.MASK_VALUES


@dataclass(frozen=True)
class Colours:
    """The different colours of a file.

    Attributes:
        codes: (colours,), each a whole number.
        bgr: (colours, 3), their values.
        alpha: (colours,).
    """

    codes: NDArray[Any]
    bgr: NDArray[Any]
    alpha: NDArray[Any]

    @property
    def are_grey(self) -> bool:
        return bool((self.bgr == self.bgr[:, :1]).all())


def page_lesion(part: Part, name: str) -> NDArray[np.bool_]:
    """The lesions of a file's only page, (height, width), as stored.

    Raises:
        MaskValueError: its colours are not those of a mask.
        ImageError: it cannot be decoded.
    """
    stored, header = part.decode(cv2.IMREAD_UNCHANGED, name), part.header
    colours = _colours(stored, header)
    if _is_flat(colours.alpha):
        if not colours.alpha.any() and colours.bgr.any():
            raise MaskValueError(f"{name} is transparent everywhere, but not black; {IN_BLACK_AND_WHITE}")
        if header.mode == "P" and _is_flat(colours.bgr):
            return _indexed_lesion(part, stored, colours, name)
        return _coloured_lesion(stored, colours, header, name)
    return _opaque_lesion(stored, colours, header, name)


def _colours(stored: Stored, header: Header) -> Colours:
    found: set[int] = set()
    for _, band in stored.bands():
        codes = _codes(band).ravel()
        found.update(_different(codes))
        if band.ndim == 3 and len(found) > MOST_COLOURS:
            break
    all_codes = np.array(sorted(found), dtype=codes.dtype)
    if band.ndim == 2:
        bgr = np.repeat(all_codes[:, np.newaxis], 3, axis=1)
        return Colours(all_codes, bgr, np.where(all_codes == _clear_value(header), 0, 255))
    values = all_codes[:, np.newaxis].view(band.dtype)
    return Colours(all_codes, values[:, :3], values[:, 3])


def _different(codes: NDArray[Any]) -> list[int]:
    """The different ones of some codes, at least one."""
    if codes.dtype == np.uint8:
        lowest, highest = int(codes.min()), int(codes.max())
        if not cv2.countNonZero(cv2.inRange(codes, lowest + 1, highest - 1)):
            return [lowest, highest]
    starts = np.flatnonzero(codes[1:] != codes[:-1]) + 1  # of runs: few where there are two colours
    return [int(codes[0]), *np.unique(codes[starts]).tolist()]


def _codes(band: Pixels) -> NDArray[Any]:
    """A whole number for every pixel, the same for the same colour; grey is its own."""
    if band.ndim == 2:
        return band
    if band.shape[2] == 3:
        band = cv2.cvtColor(band, cv2.COLOR_BGR2BGRA)
    codes: NDArray[Any] = np.ascontiguousarray(band).view(np.uint32 if band.dtype == np.uint8 else np.uint64)[..., 0]
    hidden = band[..., 3] == 0
    return np.where(hidden & (codes != 0), codes.dtype.type(HIDDEN), codes) if hidden.any() else codes


def _clear_value(header: Header) -> int:
    """The grey value that is transparent, as decoded: cv2 widens fewer bits to a byte, Pillow this value only of one bit."""
    if header.clear_grey is None:
        return -1
    return header.clear_grey * (1 if header.bits in (1, 8, 16) else 255 // (2**header.bits - 1))


def _lesion(stored: Stored, colours: Colours, chosen: Chosen) -> NDArray[np.bool_]:
    """True where a pixel has one of the chosen colours."""
    inverted = bool(2 * np.count_nonzero(chosen) > len(chosen))
    sought = colours.codes[chosen ^ inverted]
    lesion = np.empty((stored.height, stored.width), np.bool_)
    for rows, band in stored.bands():
        codes = _codes(band)
        if len(sought) == 1:  # faster than `isin`
            (np.not_equal if inverted else np.equal)(codes, sought[0], out=lesion[rows])
        else:
            lesion[rows] = np.isin(codes, sought, invert=inverted)
    return lesion


def _opaque_lesion(stored: Stored, colours: Colours, header: Header, name: str) -> NDArray[np.bool_]:
    """The lesions where some colours are transparent: what is drawn on the transparent ground.

    Where the colours alone say the same, or leave it to the transparency, it is certain. A drawing that covers more than
    half of the picture, in black or in the colour of what is hidden, may be the background with the lesions cut out.
    """
    opaque = colours.alpha != 0
    if opaque.all() or not _is_flat(colours.alpha[opaque]):
        degrees = len(np.unique(colours.alpha))
        raise MaskValueError(f"{name} has {degrees} degrees of transparency; {IN_BLACK_AND_WHITE}")
    drawn, black_ground = colours.bgr[opaque], not colours.bgr[~opaque].any()
    if _is_flat(drawn):
        lesion = _lesion(stored, colours, opaque)
        if (black_ground and drawn.any()) or (share := lesion.mean()) <= 0.5:
            return lesion
        raise MaskValueError(
            f"{name} is opaque over {share:.0%} of the picture, in one colour: the lesions or the background; "
            f"{IN_BLACK_AND_WHITE}"
        )
    if not black_ground:
        raise MaskValueError(f"{name} has several colours, and others where it is transparent; {IN_BLACK_AND_WHITE}")
    return _coloured_lesion(stored, colours, header, name)


def _indexed_lesion(part: Part, stored: Stored, colours: Colours, name: str) -> NDArray[np.bool_]:
    """The lesions of a palette of one colour: index 0 and another one, or else what the colour says."""
    plugin = FirstPage if part.header.page else PngImagePlugin.PngImageFile
    try:
        indices = in_pieces(plugin(io.BytesIO(part.data)), np.asarray)
    except (SyntaxError, OSError, ValueError) as error:
        raise ImageError(f"{name} is damaged inside ({error}); copy or export it again") from error
    used = _colours(indices, part.header)
    if len(used.codes) == 1:
        return _coloured_lesion(stored, colours, part.header, name)
    if len(used.codes) == 2 and used.codes[0] == 0:
        return _lesion(indices, used, used.codes != 0)
    raise MaskValueError(
        f"{name} has a palette of one colour and {len(used.codes)} indices ({listed(used.codes.tolist())}); "
        f"{IN_BLACK_AND_WHITE}"
    )


def _coloured_lesion(stored: Stored, colours: Colours, header: Header, name: str) -> NDArray[np.bool_]:
    """The lesions of grey, or of two colours of which one is black; equal colour channels count as one."""
    if colours.are_grey:
        return _grey_lesion(stored, colours, header, name)
    drawn: Chosen = np.asarray(colours.bgr.any(axis=1))
    if _is_flat(colours.bgr[drawn]):
        return _lesion(stored, colours, drawn)
    if header.kind == "JPEG":
        return _compressed_lesion(stored, name)
    raise MaskValueError(
        f"{name} is not binary: it holds more than two colours; save the mask with 0 for background and 255 for lesions"
    )


def _grey_lesion(stored: Stored, colours: Colours, header: Header, name: str) -> NDArray[np.bool_]:
    values = np.unique(colours.bgr)
    highest = int(values[-1])
    white = highest >= 255 and highest & (highest + 1) == 0  # of 8 to 16 bits
    if len(values[values > 0]) <= 1 and (highest in (0, 1) or white or header.mode == "P"):
        return _lesion(stored, colours, colours.bgr[:, 0] != 0)
    if header.kind == "JPEG":
        return _compressed_lesion(stored, name)
    raise _not_binary(values, name)


def _compressed_lesion(stored: Stored, name: str) -> NDArray[np.bool_]:
    """The lesions of a JPEG, whose values lie near 0 and 255: they are cut at the middle."""
    lesion = np.empty((stored.height, stored.width), np.bool_)
    counts = np.zeros(256, np.int64)
    for rows, band in stored.bands():
        grey = band if band.ndim == 2 else cv2.cvtColor(band, cv2.COLOR_BGR2GRAY)
        counts += np.bincount(grey.ravel(), minlength=256)
        lesion[rows] = grey > 127
    if counts[JPEG_MASK_TOLERANCE + 1 : 255 - JPEG_MASK_TOLERANCE].sum() > 0.1 * lesion.size:
        raise _not_binary(np.flatnonzero(counts), name)
    return lesion


def _not_binary(values: NDArray[Any], name: str) -> MaskValueError:
    return MaskValueError(
        f"{name} is not binary: it holds {len(values)} different values from {values[0]} to {values[-1]} "
        f"({listed(values.tolist())}); "
        "save the mask with 0 for background and 255 for lesions"
    )


def _is_flat(values: NDArray[Any]) -> bool:
    """Whether all colours have the same values."""
    return bool((values == values[:1]).all())
