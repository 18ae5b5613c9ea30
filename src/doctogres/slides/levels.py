"""Which files are read in regions, and whether the directories of a TIFF among them can be true.

A scanner's file is known by its suffix or its maker's description. Another TIFF counts where it is large, tiled and has
reduced copies in tiles; a smaller one is decoded once, as any picture.
"""

import mmap
from pathlib import Path
from typing import Final

from doctogres.slides.costs import CostlyError
from doctogres.slides.formats import (
    READERS,
    ColourModeError,
    ImageError,
    Source,
    TooManyPixelsError,
)
from doctogres.slides.layout import SCANNER_SUFFIXES
from doctogres.slides.tiff import Content, ManyPagesError, Page, Tag, TiffError, all_pages, first_page, tiles_inside

DECODED_PIXELS: Final = 2**24  # of a pyramid that is decoded once: what a second copy of does not count
MAX_PYRAMID_SIDE: Final = 2_000_000
MAX_TILE: Final = 2**24  # pixels
LONG: Final = 2**27  # bytes
MAKERS: Final = ("Aperio",)  # descriptions begin with them


def is_read_in_regions(source: Source, name: str) -> bool:
    """Whether a file is a scanner's or a large pyramid.

    Raises:
        ImageError: it is, but its directories cannot be true, or its end is missing.
    """
    by_scanner = isinstance(source, Path) and source.suffix.lower() in SCANNER_SUFFIXES
    content = _content(source, name)
    if content is None:
        return by_scanner
    try:
        pages, _ = all_pages(content)
    except (TiffError, ManyPagesError) as error:
        if by_scanner:
            raise ImageError(f"{name} is truncated or damaged ({error}); copy or export it again") from error
        return False  # the reader of pictures says what is wrong
    levels = [page for page in pages if page.number(Tag.TILE_WIDTH) and page.number(Tag.TILE_HEIGHT)]
    if not by_scanner and not (_is_scanned(pages[0], levels) or _is_large(pages[0], levels)):
        return False
    for page in levels:
        _check(content, page, name)
    return True


def size_in_regions(path: Path, name: str) -> tuple[int, int] | None:
    """Width and height of a TIFF that is read in regions, by its directories alone; None of any other file, and of a scanner's.

    Raises:
        ImageError: see `is_read_in_regions`.
    """
    if path.suffix.lower() in SCANNER_SUFFIXES or not is_read_in_regions(path, name):
        return None
    content = _content(path, name)
    assert content is not None  # only a scanner's file is read in regions without being a TIFF
    return first_page(content).size


def is_long(path: Path) -> bool:
    """Whether a file is a scanner's, or as long as one: it is then read where it lies, and not kept in memory."""
    return path.suffix.lower() in SCANNER_SUFFIXES or path.stat().st_size > LONG


def _content(source: Source, name: str) -> Content | None:
    """The bytes of a TIFF file, which are not read before they are needed; None of any other file."""
    signatures = READERS["TIFF"].signatures
    if isinstance(source, bytes):
        return source if source.startswith(signatures) else None
    try:
        with source.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if file.read(2) in signatures else None
    except OSError as error:
        raise ImageError(
            f"{name} cannot be opened: {error.strerror or error}; check the path and its permissions"
        ) from error


def _is_scanned(first: Page, levels: list[Page]) -> bool:
    return first in levels and first.description.startswith(MAKERS)


def _is_large(first: Page, levels: list[Page]) -> bool:
    width, height = first.size
    return first in levels and width * height > DECODED_PIXELS and any(level.is_reduced for level in levels[1:])


def _check(content: Content, page: Page, name: str) -> None:
    """Refuses a level that cannot be what it says, before OpenSlide believes it."""
    width, height = page.size
    tile = page.number(Tag.TILE_WIDTH) * page.number(Tag.TILE_HEIGHT)
    if max(width, height) > MAX_PYRAMID_SIDE:
        raise TooManyPixelsError(
            f"{name} has {width} x {height} pixels, more than the limit of {MAX_PYRAMID_SIDE} on a side; crop it"
        )
    if tile > MAX_TILE:
        raise CostlyError(
            f"{name} has tiles of {tile} pixels, more than the limit of {MAX_TILE}; export it with tiles of 256 x 256"
        )
    if page.number(Tag.ORIENTATION, 1) != 1:
        raise ImageError(f"{name} is stored rotated; rotated pyramids cannot be read, so export it upright")
    if page.bits != 8:
        raise ColourModeError(
            f"{name} holds {page.bits}-bit values, which cannot be read from a pyramid; export it as 8-bit RGB"
        )
    stated, inside = tiles_inside(content, page)
    if inside < stated:
        raise ImageError(
            f"{name} is truncated or damaged: {stated - inside} of {stated} tiles of {width} x {height} pixels lie beyond "
            "the end of the file; copy or export it again"
        )
