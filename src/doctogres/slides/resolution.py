"""Microns per pixel that a picture's file states: a TIFF's resolution, OME or ImageJ description, a PNG's pHYs chunk.

Most programs write a resolution for printing (72, 96, 300 dots per inch) that says nothing about the slide: 300 dpi would
be 85 microns per pixel. So only what a microscope may have is believed.
"""

import re
import struct
from typing import Final

from doctogres.errors import ParameterError
from doctogres.slides.formats import PNG_SIGNATURE
from doctogres.slides.tiff import Page, Tag, TiffError, first_page

LEAST_MPP, MOST_MPP = 0.02, 20.0
UNEQUAL: Final = 0.02  # share by which the two sides of a pixel may differ
MICRONS: Final = {2: 25_400.0, 3: 10_000.0}  # per inch and centimetre, by the number of a TIFF's ResolutionUnit
OME: Final = re.compile(r'\bPhysicalSize([XY])="([\d.eE+-]+)"')
OME_UNIT: Final = re.compile(r'\bPhysicalSize[XY]Unit="(?!µm|μm|um|micron)')
IMAGEJ_MICRONS: Final = re.compile(r"^unit=(?:micron|um|µm|μm|\\u00B5m)", re.MULTILINE)


def parsed_mpp(text: str) -> float | None:
    """The microns per pixel in a parameter; None for an empty one.

    Raises:
        ParameterError: they are none that a microscope may have.
    """
    if not text.strip():
        return None
    if not (mpp := believed(*[_number(text)] * 2)):
        raise ParameterError(f"mpp={text}: give microns per pixel, {LEAST_MPP:g} to {MOST_MPP:g}, or nothing")
    return mpp


def stated_mpp(data: bytes) -> float | None:
    """Microns per pixel that a picture's file states; None where it states none that a microscope may have."""
    if data.startswith(PNG_SIGNATURE):
        return believed(*_of_png(data))
    if data[:2] in (b"II", b"MM"):
        try:
            return believed(*_of_tiff(first_page(data)))
        except TiffError:
            return None  # the reader says what is wrong
    return None


def believed(across: float, down: float) -> float | None:
    """Microns per pixel of square pixels that a microscope may have; else None.

    Args:
        across: width of a pixel in microns; 0 if it is not stated.
        down: its height.
    """
    alike = abs(across - down) <= UNEQUAL * max(across, down)
    return (across + down) / 2 if alike and LEAST_MPP <= across <= MOST_MPP else None


def _of_png(data: bytes) -> tuple[float, float]:
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"pHYs" and length == 9 and position + 17 <= len(data):
            across, down, unit = struct.unpack_from(">IIB", data, position + 8)
            return (1e6 / across, 1e6 / down) if unit == 1 and across and down else (0, 0)
        if kind == b"IDAT":
            break
        position += 12 + length
    return 0, 0


def _of_tiff(page: Page) -> tuple[float, float]:
    sizes = dict(OME.findall(page.description))
    if sizes.keys() == {"X", "Y"} and not OME_UNIT.search(page.description):
        return _number(sizes["X"]), _number(sizes["Y"])
    unit = page.number(Tag.RESOLUTION_UNIT, 2)
    microns = 1.0 if IMAGEJ_MICRONS.search(page.description) else MICRONS.get(unit, 0.0)
    across, down = (_pixels(page.numbers.get(tag, ())) for tag in (Tag.X_RESOLUTION, Tag.Y_RESOLUTION))
    return (microns / across, microns / down) if across and down else (0, 0)


def _pixels(rational: tuple[int, ...]) -> float:
    return rational[0] / rational[1] if len(rational) > 1 and rational[1] else 0.0


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
