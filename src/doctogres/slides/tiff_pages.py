"""Which pages of a TIFF file make up a picture or a mask; what is not certain is refused."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from doctogres.errors import listed
from doctogres.slides.bands import Stored
from doctogres.slides.formats import (
    MAX_PIXELS_VARIABLE,
    Header,
    ImageError,
    TooManyPixelsError,
    decode,
    max_pixels,
    read_header,
)
from doctogres.slides.reasons import Reason
from doctogres.slides.tiff import ManyPagesError, Page, Tag, TiffError, all_pages, beginning_with

REMEDY: Final = "save the page that is meant as a file of its own"
RGB_NAMES: Final = (("r", "red"), ("g", "green"), ("b", "blue"))
# Correlation of a picture with a smaller copy. A thumbnail of another slide reaches 0.75, as both have their tissue in the
# middle; one of the slide itself 0.95, if it is made in the same way.
SAME_PICTURE: Final = 0.9
WAYS_TO_REDUCE: Final = (cv2.INTER_AREA, cv2.INTER_NEAREST, cv2.INTER_NEAREST_EXACT)
IMAGEJ: Final = re.compile(r"^(images|channels|slices|frames)=(\d{1,9})", re.MULTILINE)
OME_SIZES: Final = re.compile(r'\bSize([ZTC])="(\d+)"')
OME_CHANNEL: Final = re.compile(r'<(?:\w+:)?Channel\b[^<>]*?\bName="([^"]*)"')
OME_IMAGE: Final = re.compile(r"<(?:\w+:)?Image\b")
AXES: Final = re.compile(r'"axes":\s*"([A-Za-z]+)"')


class PagesError(ImageError):
    """The file has several pages, and which of them are meant is not certain."""

    code: ClassVar[str] = Reason.SEVERAL_PAGES


@dataclass(frozen=True)
class Part:
    """A page as a file of its own."""

    data: bytes
    header: Header

    def decode(self, flags: int, name: str) -> Stored:
        return decode(self.data, flags, self.header, name)


@dataclass(frozen=True)
class Parts:
    """The pages of full size, and smaller ones that nothing marks as copies of the first: `check_copies` compares them."""

    full: tuple[Part, ...]
    smaller: tuple[Part, ...] = ()

    def check_copies(self, whole: NDArray[Any], read: Callable[[Part], NDArray[Any]], name: str) -> None:
        """Refuses a smaller page that is another picture than `whole`, which `read` made of the first page.

        Raises:
            PagesError: one is.
        """
        for part in self.smaller:
            if not _is_copy(read(part), whole):
                page = part.header.page
                raise PagesError(f"{name} has a smaller page, {page}, that is no copy of its first; {REMEDY}")


def parts_of(data: bytes, header: Header, name: str) -> Parts:
    """The pages that count; of a file that is no TIFF, the file itself.

    Pages that are marked as smaller copies (NewSubfileType, SubIFDs) are left out.

    Raises:
        PagesError: a page is of another size, or the first one is not the largest.
        TooManyPixelsError: the pages together have more pixels than the limit.
        ImageError: the directories are damaged.
    """
    if header.page is None:
        return Parts((Part(data, header),))
    try:
        pages, below = all_pages(data)
    except TiffError as error:
        raise ImageError(f"{name} is truncated or damaged ({error}); copy or export it again") from error
    except ManyPagesError as error:
        raise PagesError(f"{name} has {error}; {REMEDY}") from error
    full, smaller = _sorted(pages, below, name)
    if len(full) + len(smaller) == 1:
        return Parts((Part(data, header),))
    if (pixels := sum(page.size[0] * page.size[1] for page in (*full, *smaller))) > (limit := max_pixels()):
        raise TooManyPixelsError(
            f"{name} has {len(full) + len(smaller)} pages of {pixels} pixels, more than the limit of {limit}; "
            f"raise the environment variable {MAX_PIXELS_VARIABLE} if the machine has the memory"
        )
    parts = Parts(_read(data, full, name), _read(data, smaller, name))
    if len({(part.header.width, part.header.height) for part in parts.full}) > 1:
        raise PagesError(f"{name} has pages that are turned in different ways; {REMEDY}")
    return parts


def check_one_picture(parts: Parts, name: str) -> None:
    """Refuses several full-size pages that are not the red, green and blue of one picture.

    Raises:
        PagesError: they are anything else, or may be.
    """
    pages = [part.header.page for part in parts.full if part.header.page]
    if len(pages) > 1 and (len(pages) != 3 or not all(_is_channel(page, pages[0]) for page in pages)):
        raise PagesError(f"{name} has {_counted(pages)}; {REMEDY}")
    if len(pages) > 1 and (what := _other_than_colours(pages[0].description)):
        raise PagesError(f"{name} has {_counted(pages)}, which its description calls {what}; {REMEDY}")


def _sorted(pages: list[Page], below: list[Page], name: str) -> tuple[list[Page], list[Page]]:
    """The pages of the first one's size, and the smaller ones that are not marked as copies."""
    first = pages[0]
    if (stated := _imagej_sizes(first.description).get("images", 1)) > len(pages):
        raise PagesError(f"{name} is an ImageJ stack of {stated} pictures; {REMEDY}")
    width, height = first.size
    full, smaller = [first], []
    if len(pages) + len(below) > 1 and first.is_reduced:
        raise PagesError(f"{name} begins with a page that is marked as a smaller copy of another, {first}; {REMEDY}")
    for page in (*pages[1:], *below):
        across, down = page.size
        if page.is_transparency:
            raise PagesError(f"{name} keeps its transparency in a page of its own; save it without transparency")
        if page in below or page.is_reduced:
            if across >= width and down >= height:
                raise PagesError(
                    f"{name} has a page, {page}, that should be a smaller copy of its first, {first}; {REMEDY}"
                )
        elif (across, down) == (width, height):
            full.append(page)
        elif across <= width and down <= height and abs(across * height - down * width) <= width + height:
            smaller.append(page)
        else:
            raise PagesError(f"{name} has {_counted(pages)}; {REMEDY}")
    return full, smaller


def _read(data: bytes, pages: list[Page], name: str) -> tuple[Part, ...]:
    files = (beginning_with(data, page) for page in pages)
    return tuple(Part(file, read_header(file, name)) for file in files)


def _counted(pages: list[Page]) -> str:
    kinds = [f"{count} of {kind}" if count > 1 else kind for kind, count in Counter(map(str, pages)).items()]
    return f"{len(pages)} pages: {listed(kinds)}"


def _is_channel(page: Page, first: Page) -> bool:
    alike = all(page.number(tag, 1) == first.number(tag, 1) for tag in (Tag.PHOTOMETRIC, Tag.SAMPLE_FORMAT))
    return page.is_grey and page.bits == first.bits >= 8 and alike


def _imagej_sizes(description: str) -> dict[str, int]:
    """What ImageJ says of a file's pages: images, channels, slices, frames."""
    return {key: int(count) for key, count in IMAGEJ.findall(description)} if description.startswith("ImageJ") else {}


def _other_than_colours(description: str) -> str:
    """What a description says that three pages are, where that is not the colours of one picture; else empty."""
    if sizes := _imagej_sizes(description):
        stack = sizes.get("channels") != 3 or max(sizes.get("slices", 1), sizes.get("frames", 1)) > 1
        return ", ".join(f"{key}={count}" for key, count in sizes.items()) if stack else ""
    if "<OME" in description or "<ome:OME" in description:
        return _other_in_ome(description)
    axes = AXES.search(description)
    return f"axes {axes[1]}" if axes and axes[1][0].upper() not in "CSQ" else ""


def _other_in_ome(description: str) -> str:
    if len(OME_IMAGE.findall(description)) > 1:
        return "several images"
    if others := [
        f"Size{axis}={count}" for axis, count in OME_SIZES.findall(description) if axis != "C" and count != "1"
    ]:
        return ", ".join(others)
    channels = OME_CHANNEL.findall(description)
    named = all(channel.lower() in names for channel, names in zip(channels, RGB_NAMES, strict=False))
    return "" if named else f"the channels {listed(channels)}"


def _is_copy(small: NDArray[Any], whole: NDArray[Any]) -> bool:
    """Whether a picture is the other one made smaller."""
    grey = _grey(small)
    return any(
        _alike(np.asarray(cv2.resize(_grey(whole), grey.shape[::-1], interpolation=way)), grey)
        for way in WAYS_TO_REDUCE
    )


def _alike(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    if min(one.std(), other.std()) == 0:
        return bool(np.abs(one - other).max() < 1)
    return bool(np.corrcoef(one.ravel(), other.ravel())[0, 1] > SAME_PICTURE)


def _grey(picture: NDArray[Any]) -> NDArray[np.float32]:
    pixels = picture if picture.ndim == 2 else picture[..., :3].mean(axis=2, dtype=np.float32)
    return np.asarray(pixels, np.float32)
