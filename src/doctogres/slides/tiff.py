"""The pages of a TIFF file, as their directories describe them; no pixel is decoded.

Pillow is not asked, because it stops at a compression that it does not know, and follows a chain of pages without end.
"""

import mmap
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Content = bytes | mmap.mmap  # of a file

MAX_PAGES: Final = 256
MAX_NUMBERS: Final = 64  # values of a tag; none here needs more
MAX_TEXT: Final = 2**20  # bytes of a description
NUMBERS: Final = {  # types of whole numbers
    **{1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"},
    **{6: "i1", 8: "i2", 9: "i4", 17: "i8"},
}
TEXT: Final = 2
RATIONAL: Final = 5  # two whole numbers


class Tag(IntEnum):
    """The tags that are read."""

    NEW_SUBFILE_TYPE = 254
    SUBFILE_TYPE = 255
    WIDTH = 256
    HEIGHT = 257
    BITS = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    DESCRIPTION = 270
    ORIENTATION = 274
    SAMPLES = 277
    ROWS_PER_STRIP = 278
    MAX_VALUE = 281
    X_RESOLUTION = 282
    Y_RESOLUTION = 283
    PLANAR = 284
    RESOLUTION_UNIT = 296
    TILE_WIDTH = 322
    TILE_HEIGHT = 323
    TILE_OFFSETS = 324
    TILE_LENGTHS = 325
    SUB_PAGES = 330
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    S_MAX_VALUE = 341


# Pillow's decoder has these; the others are refused by their names, as far as they have one here.
COMPRESSIONS: Final = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32946, 34925, 50000))
COMPRESSION_NAMES: Final = {
    9: "JBIG",
    10: "JBIG",
    22610: "JPEG XR",
    32809: "ThunderScan",
    33003: "Aperio JPEG 2000, YCbCr",
    33004: "Aperio JPEG 2000, lossless",
    33005: "Aperio JPEG 2000, RGB",
    34661: "JBIG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    34887: "LERC",
    34925: "LZMA",
    34892: "lossy JPEG of DNG",
    34933: "PNG",
    34934: "JPEG XR",
    50000: "zstd",
    50001: "WebP",
    50002: "JPEG XL",
    52546: "JPEG XL",
}
COLOURS: Final = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr", 8: "Lab"}
VALUE_BITS: Final = frozenset((1, 2, 4, 8, 10, 12, 14, 16, 24, 32, 64, 128))
SAMPLE_FORMATS: Final = {1: "", 2: " signed", 3: " floating-point", 5: " complex", 6: " complex"}


class TiffError(ValueError):
    """The directories cannot be those of a whole TIFF file."""


class ManyPagesError(ValueError):
    """There are more than MAX_PAGES pages."""


@dataclass(frozen=True)
class Page:
    """One page; its size is as stored, before any turn.

    Attributes:
        offset: of its directory in the file.
        numbers: the values of its tags.
        description: the text of ImageDescription.
    """

    offset: int
    numbers: dict[int, tuple[int, ...]]
    description: str = ""

    def number(self, tag: Tag, default: int = 0) -> int:
        """The first value of a tag."""
        return next(iter(self.numbers.get(tag, ())), default)

    @property
    def size(self) -> tuple[int, int]:
        return self.number(Tag.WIDTH), self.number(Tag.HEIGHT)

    @property
    def bits(self) -> int:
        return max(self.numbers.get(Tag.BITS, ()), default=1)

    @property
    def is_plausible(self) -> bool:
        """Whether it describes values that some program may write, and not what damage leaves."""
        bits = self.numbers.get(Tag.BITS, ())
        return (
            min(self.size) > 0
            and len(bits) in (1, self.number(Tag.SAMPLES, 1))
            and VALUE_BITS.issuperset(bits)
            and self.number(Tag.PHOTOMETRIC) in COLOURS
            and self.number(Tag.SAMPLE_FORMAT, 1) in SAMPLE_FORMATS
        )

    @property
    def is_grey(self) -> bool:
        return self.number(Tag.SAMPLES, 1) == 1 and self.number(Tag.PHOTOMETRIC) in (0, 1)

    @property
    def is_reduced(self) -> bool:
        """Whether it is marked as a smaller copy of another page."""
        return bool(self.number(Tag.NEW_SUBFILE_TYPE) & 1) or self.number(Tag.SUBFILE_TYPE) == 2

    @property
    def is_transparency(self) -> bool:
        """Whether it is marked as the transparency of another page."""
        return bool(self.number(Tag.NEW_SUBFILE_TYPE) & 4)

    def __str__(self) -> str:
        """Size and kind, as in "600 x 400 RGB (3 x 8-bit)"."""
        width, height = self.size
        photometric = self.number(Tag.PHOTOMETRIC)
        colours = COLOURS.get(photometric, f"photometric {photometric}")
        samples = self.number(Tag.SAMPLES, 1)
        form = SAMPLE_FORMATS.get(self.number(Tag.SAMPLE_FORMAT, 1), "")
        return f"{width} x {height} {colours} ({f'{samples} x ' if samples > 1 else ''}{self.bits}-bit{form})"


class _Directories:
    """Reads directories until together they are longer than the file: those of an honest file do not overlap."""

    def __init__(self, data: Content) -> None:
        self.data = data
        self.left = len(data)
        order = "<" if data[:2] == b"II" else ">"
        self.order = order
        version = self._whole(np.dtype(order + "u2"), 2)
        if version not in (42, 43):
            raise TiffError("it begins like a TIFF file but is none")
        wide = version == 43
        self.pointer = np.dtype(order + ("u8" if wide else "u4"))
        self.count = np.dtype(order + ("u8" if wide else "u2"))
        parts = [("tag", order + "u2"), ("kind", order + "u2"), ("count", self.pointer), ("value", self.pointer)]
        self.entry = np.dtype(parts)
        self.first = self._whole(self.pointer, 8 if wide else 4)

    def read(self, offset: int) -> tuple[Page, int]:
        """The page whose directory is at `offset`, and the offset of the next one; 0 after the last."""
        entries, start = self._entries(offset)
        end = start + entries.nbytes
        numbers: dict[int, tuple[int, ...]] = {}
        description = ""
        for place in np.flatnonzero(np.isin(entries["tag"], list(Tag))).tolist():
            tag, kind = int(entries["tag"][place]), int(entries["kind"][place])
            content = self._content(start + place * self.entry.itemsize, kind, int(entries["count"][place]))
            if kind == TEXT and tag == Tag.DESCRIPTION:
                description = content.decode("utf-8", "replace")
            elif kind in (RATIONAL, *NUMBERS) and tag not in numbers:
                numbers[tag] = tuple(np.frombuffer(content, self.order + NUMBERS.get(kind, "u4")).tolist())
        last = end + self.pointer.itemsize > len(self.data)  # some writers leave out the pointer of the last page
        return Page(offset, numbers, description), 0 if last else self._whole(self.pointer, end)

    def values(self, page: Page, tag: Tag, most: int) -> NDArray[np.integer[Any]]:
        """At most so many values of a tag; none where it is missing, of another type or outside the file."""
        entries, start = self._entries(page.offset)
        for place in np.flatnonzero((entries["tag"] == tag) & np.isin(entries["kind"], list(NUMBERS)))[:1].tolist():
            kind, count = int(entries["kind"][place]), int(entries["count"][place])
            content = self._content(start + place * self.entry.itemsize, kind, count, most)
            return np.frombuffer(content, self.order + NUMBERS[kind])
        return np.empty(0, np.int64)

    def _entries(self, offset: int) -> tuple[NDArray[Any], int]:
        """The entries of the directory at `offset`, and where they begin."""
        count = self._whole(self.count, offset)
        start = offset + self.count.itemsize
        length = count * self.entry.itemsize
        self.left -= start + length - offset
        if self.left < 0 or start + length > len(self.data):
            raise TiffError(f"the directory of a page, at byte {offset}, is not complete")
        return np.frombuffer(self.data, self.entry, count, start), start

    def _content(self, entry: int, kind: int, count: int, most: int = MAX_NUMBERS) -> bytes:
        """The bytes of a tag's values; empty where it is of another type or lies outside the file."""
        size = {TEXT: 1, RATIONAL: 8}.get(kind) or int(NUMBERS.get(kind, "u0")[1:])
        place = entry + 4 + self.pointer.itemsize
        if count * size > self.pointer.itemsize:
            place = self._whole(self.pointer, place)
        length = min(count, MAX_TEXT if kind == TEXT else most) * size
        return self.data[place : place + length] if place + length <= len(self.data) else b""

    def _whole(self, kind: "np.dtype[Any]", offset: int) -> int:
        if offset + kind.itemsize > len(self.data):
            raise TiffError(f"the directory of a page should begin at byte {offset}, behind the end of the file")
        return int(np.frombuffer(self.data, kind, 1, offset)[0])


def first_page(data: Content) -> Page:
    """The first page.

    Raises:
        TiffError: there is none.
    """
    directories = _Directories(data)
    return directories.read(directories.first)[0]


def all_pages(data: Content) -> tuple[list[Page], list[Page]]:
    """The pages in their order, and those filed under the first one (SubIFDs).

    A chain that leads back to one of its pages ends there.

    Raises:
        TiffError: damaged.
        ManyPagesError: more than MAX_PAGES.
    """
    directories = _Directories(data)
    chain: list[Page] = []
    offset = directories.first
    while offset and offset not in {page.offset for page in chain}:
        if len(chain) == MAX_PAGES:
            raise ManyPagesError(f"more than {MAX_PAGES} pages")
        page, offset = directories.read(offset)
        chain.append(page)
    return chain, [directories.read(below)[0] for below in chain[0].numbers.get(Tag.SUB_PAGES, ())]


def tiles_inside(data: Content, page: Page) -> tuple[int, int]:
    """How many tiles a page should have, and how many of these lie inside the file.

    A tile of length zero is a blank one: scanners leave them out.

    Raises:
        TiffError: damaged.
    """
    directories = _Directories(data)
    width, height = page.size
    across, down = page.number(Tag.TILE_WIDTH), page.number(Tag.TILE_HEIGHT)
    stated = -(-width // across) * -(-height // down)
    begin, length = (directories.values(page, tag, stated) for tag in (Tag.TILE_OFFSETS, Tag.TILE_LENGTHS))
    if len(begin) != len(length):
        return stated, min(len(begin), len(length))
    size = len(data)
    inside = (length == 0) | ((begin <= size) & (length <= size) & (begin.astype(np.float64) + length <= size))
    return stated, int(np.count_nonzero(inside))


def beginning_with(data: bytes, page: Page) -> bytes:
    """The same file with this page as its first one."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    start, end = (8, 16) if int.from_bytes(data[2:4], order) == 43 else (4, 8)
    return data[:start] + page.offset.to_bytes(end - start, order) + data[end:]


def compression_name(number: int) -> str:
    """A compression as a sentence names it."""
    name = COMPRESSION_NAMES.get(number)
    return f"compression {number} ({name})" if name else f"compression {number}"
