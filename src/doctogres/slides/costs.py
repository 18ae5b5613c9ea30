"""What decoding a file takes, by its header: a few kilobytes may announce what fills the memory of a machine.

Any file may take LEAST, and a larger one 500 times its length. An honest picture needs 200 times at most, as even a coarse
JPEG keeps a bit for ten pixels. A mask can be packed a thousand times: so its decoding is the thrifty one.
"""

from math import ceil
from typing import ClassVar, Final

from doctogres.slides.formats import DEFAULT_MAX_PIXELS, MAX_PIXELS_VARIABLE, Header, ImageError, max_pixels
from doctogres.slides.jpeg import scans
from doctogres.slides.reasons import Reason
from doctogres.slides.tiff import Page, Tag
from doctogres.slides.tiff_pages import Parts
from doctogres.slides.tiff_pixels import SEPARATE_PLANES

LEAST: Final = 500 * 2**20
TIMES_LENGTH: Final = 500
SINGLE: Final = frozenset(("1", "L", "P", "I;16", "I;16B"))  # modes of one value per pixel
# Bytes per pixel, as measured. Where a pixel takes more time than others, more are counted: LEAST takes two seconds.
GREY_MASK, PALETTE_MASK, DEEP_GREY_MASK, MASK = 2.2, 3.2, 4.2, 5.2
PICTURE, ALPHA, JPEG, GREY_JPEG_MASK = 7.2, 26.0, 9.2, 4.2
DEEP_COLOURS: Final = {"PNG": 26, "TIFF": 48}
SMALLER_PAGE: Final = 16  # for each pixel of the first page, which is compared with it
TURNED_TIFF: Final = 4
YCBCR: Final = 6  # a TIFF's strips in these colours are decoded to red, green, blue and alpha
SCAN: Final = 0.1
TILE: Final = 5000  # bytes for each


class CostlyError(ImageError):
    """Decoding the file would take more memory or time than a file of its length may."""

    code: ClassVar[str] = Reason.COSTLY


def check_cost(data: bytes, parts: Parts, name: str, *, mask: bool) -> None:
    """Refuses a picture or mask that would take too much memory or time, before it is decoded.

    Args:
        data: the file.
        parts: its pages.
        name: of the file, for the error.
        mask: whether it is to be read as a mask.

    Raises:
        CostlyError: with what it would take.
    """
    header = parts.full[0].header
    cost = sum(_cost(part.header, data, mask=mask) for part in (*parts.full, *parts.smaller))
    cost += SMALLER_PAGE * len(parts.smaller) * header.width * header.height
    if cost > (most := max(LEAST * max(1, max_pixels() / DEFAULT_MAX_PIXELS), TIMES_LENGTH * len(data))):
        remedy = "save it as an 8-bit grey PNG" if mask else "export it again as PNG or JPEG"
        raise CostlyError(
            f"{name} has {len(data)} bytes, but announces {header.width} x {header.height} pixels that cost {cost / 1e6:.0f} "
            f"MB to decode, more than the {most / 1e6:.0f} MB that a file of this length may; {remedy}, or raise the "
            f"environment variable {MAX_PIXELS_VARIABLE} if the machine has the memory"
        )


def _cost(header: Header, data: bytes, *, mask: bool) -> float:
    """The bytes of memory that decoding takes, as far as the header tells."""
    pixels = header.width * header.height
    per_pixel = _per_pixel(header, mask=mask)
    if header.page is None:
        return pixels * (per_pixel + SCAN * (scans(data) if header.kind == "JPEG" else 0))
    per_pixel += TURNED_TIFF * (header.stated_orientation > 1)
    tiles, size = _tiles(header.page)
    width = ceil(header.bits / 8)
    values = 4 if header.page.number(Tag.PHOTOMETRIC) == YCBCR else header.page.number(Tag.SAMPLES, 1)
    while_decoding = pixels * (width if header.mode in SINGLE else 4) + size * values * width
    return max(max(pixels, tiles * size) * per_pixel, while_decoding) + tiles * TILE


def _per_pixel(header: Header, *, mask: bool) -> float:
    single, deep = header.mode in SINGLE, header.bits > 8
    if header.kind == "JPEG":
        return GREY_JPEG_MASK if mask and single else JPEG
    if deep and not single:
        return DEEP_COLOURS[header.kind]
    if mask:
        return DEEP_GREY_MASK if deep else PALETTE_MASK if header.mode == "P" else GREY_MASK if single else MASK
    return ALPHA if header.has_alpha else PICTURE


def _tiles(page: Page) -> tuple[int, int]:
    """How many tiles or strips a page has, and the pixels of one of them."""
    width, height = page.size
    across = max(1, page.number(Tag.TILE_WIDTH) or width)
    down = max(1, page.number(Tag.TILE_HEIGHT) or min(page.number(Tag.ROWS_PER_STRIP) or height, height))
    planes = page.number(Tag.SAMPLES, 1) if page.number(Tag.PLANAR, 1) == SEPARATE_PLANES else 1
    return ceil(width / across) * ceil(height / down) * planes, across * down
