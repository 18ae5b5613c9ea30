"""Masks: the lesions of a file, true or false for each pixel; and a picture together with its mask."""

from typing import ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from doctogres.slides.costs import check_cost
from doctogres.slides.formats import (
    Header,
    ImageError,
    Source,
    read_header,
    source_bytes,
    source_name,
    upright,
)
from doctogres.slides.geojson import is_geojson, read_outlines
from doctogres.slides.images import check_mode, read_rgb
from doctogres.slides.lesions import page_lesion
from doctogres.slides.levels import is_read_in_regions
from doctogres.slides.outlines import check_inside, filled, lies_inside
from doctogres.slides.plausibility import better_fit
from doctogres.slides.pyramid import Pyramid
from doctogres.slides.reasons import Reason
from doctogres.slides.resolution import stated_mpp
from doctogres.slides.scale import factor
from doctogres.slides.source import DecodedPicture, SlideSource
from doctogres.slides.tiff_pages import PagesError, Part, parts_of

OUTLINED_SIDE: Final = 8192  # pixels of the mask into which the outlines on a pyramid are filled


class SizeMismatchError(ImageError):
    """Picture and mask differ in size."""

    code: ClassVar[str] = Reason.SIZE_MISMATCH


class OrientationError(ImageError):
    """Picture and mask state different orientations, and neither size nor tissue says how the mask lies."""

    code: ClassVar[str] = Reason.MASK_ORIENTATION


class MarkedSlide(NamedTuple):
    """A picture with its mask.

    Attributes:
        picture: its pixels.
        mask: (height, width), true on lesions; that of a pyramid may be smaller, see `scale.factor`.
        note: a reason to look at the pair, empty where there is none.
    """

    picture: SlideSource
    mask: NDArray[np.bool_]
    note: str = ""


def read_with_mask(
    picture: Source, mask: Source, *, name: str = "", mask_name: str = "", annotations: str = ""
) -> MarkedSlide:
    """A picture and its mask, both upright; see `read_rgb` and `read_mask`. The mask may be outlines in GeoJSON.

    Where the files state different EXIF orientations, the mask may have been drawn on the picture's stored pixels or on
    the upright picture. The sizes decide, else the tissue; the note says how the mask was then laid.

    Args:
        picture: the file of the picture.
        mask: the file of the mask.
        name: of the picture, for messages.
        mask_name: of the mask.
        annotations: which outlines are lesions; see `read_outlines`.

    Raises:
        SizeMismatchError: they differ in size, which the headers say before anything is decoded.
        OrientationError: they state different orientations, and nothing says how the mask lies.
        OutlineError: the outlines cannot be used.
        ImageError: one of the two cannot be read.
    """
    name, mask_name = source_name(picture, name), source_name(mask, mask_name)
    if is_read_in_regions(picture, name):
        return _on_pyramid(Pyramid.open(picture, name), mask, name, mask_name, annotations)
    picture, mask = source_bytes(picture, name), source_bytes(mask, mask_name)
    slide = _of_picture(picture, mask, name, mask_name, annotations)
    return slide._replace(picture=slide.picture.at(stated_mpp(picture)))


def _of_picture(picture: bytes, mask: bytes, name: str, mask_name: str, annotations: str) -> MarkedSlide:
    header = read_header(picture, name)
    if is_geojson(mask):
        return _outlined(picture, mask, header, name, mask_name, annotations)
    of_mask = read_header(mask, mask_name)
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
    return MarkedSlide(DecodedPicture(rgb), lesion) if len(sizes) == 1 else _laid(rgb, lesion, of_both, name, mask_name)


def _on_pyramid(pyramid: Pyramid, mask: Source, name: str, mask_name: str, annotations: str) -> MarkedSlide:
    mask = source_bytes(mask, mask_name)
    if is_geojson(mask):
        outlines = read_outlines(mask, mask_name, annotations=annotations)
        check_inside(outlines, pyramid.size, mask_name)
        by = 2 ** max(0, (max(pyramid.size) - 1) // OUTLINED_SIDE).bit_length()
        size = -(-pyramid.size[0] // by), -(-pyramid.size[1] // by)
        return MarkedSlide(pyramid, filled(outlines, size, mask_name, scale=1 / by))
    header = read_header(mask, mask_name)
    if factor(pyramid.size, (header.width, header.height), pyramid.mask_reduction) is None:
        raise SizeMismatchError(
            f"{mask_name} has {header.width} x {header.height} pixels, {name} {pyramid.size[0]} x {pyramid.size[1]}; give "
            f"the mask of this slide, at its size or reduced at most {pyramid.mask_reduction} times with the same ratio of the sides"
        )
    return MarkedSlide(pyramid, read_mask(mask, name=mask_name))


def _outlined(
    picture: bytes, outlined: bytes, header: Header, name: str, mask_name: str, annotations: str
) -> MarkedSlide:
    """The slide with the lesions inside of outlines, drawn on the upright picture or, as QuPath does, on its stored pixels."""
    outlines = read_outlines(outlined, mask_name, annotations=annotations)
    size, orientation = (header.width, header.height), header.orientation
    stored_size = size if orientation < 5 else size[::-1]
    fitting = [lies_inside(outlines, size), orientation != 1 and lies_inside(outlines, stored_size)]
    if not any(fitting):
        check_inside(outlines, size, mask_name)
    drawn = filled(outlines, size, mask_name) if fitting[0] else None
    if not fitting[1]:
        assert drawn is not None
        return MarkedSlide(DecodedPicture(read_rgb(picture, name=name)), drawn)
    turned = np.ascontiguousarray(upright(filled(outlines, stored_size, mask_name), orientation))
    return _better_laid(
        read_rgb(picture, name=name),
        drawn,
        turned,
        f"{name} states EXIF orientation {orientation} and {mask_name} none",
    )


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
        return MarkedSlide(DecodedPicture(rgb), lesion)  # drawn on the upright picture
    stated = f"{name} states EXIF orientation {of_picture} and {mask_name} {of_mask}"
    return _better_laid(rgb, lesion if lesion.shape == turned.shape else None, turned, stated)


def _better_laid(
    rgb: NDArray[np.uint8], drawn: NDArray[np.bool_] | None, turned: NDArray[np.bool_], stated: str
) -> MarkedSlide:
    """The slide with its mask as it was drawn or turned, whichever fits the tissue; `drawn` is None where it cannot fit."""
    better, why = 1, "only so their sizes agree"
    if drawn is not None:
        fitting, why = better_fit(rgb, drawn, turned), "so it fits the tissue better"
        if fitting is None:
            raise OrientationError(
                f"{stated}, and the tissue does not tell how the mask lies; save both upright, without an orientation"
            )
        better = fitting
    laid = ("as it is", "turned like the picture")[better]
    problem = f"{stated}; the mask was laid {laid}, because {why}"
    mask = turned if better or drawn is None else drawn
    return MarkedSlide(DecodedPicture(rgb), mask, Reason.MASK_ORIENTATION.because(problem=problem))


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
    check_mode(header, name, "grey")
    parts = parts_of(data, header, name)
    check_cost(data, parts, name, mask=True)
    lesion = page_lesion(parts.full[0], name)
    parts.check_copies(lesion, lambda part: page_lesion(part, name), name)
    if len(parts.full) > 1:
        lesion = _union(lesion, parts.full[1:], name)
    return np.ascontiguousarray(upright(lesion, header.orientation), dtype=np.bool_)


def _union(lesion: NDArray[np.bool_], others: tuple[Part, ...], name: str) -> NDArray[np.bool_]:
    """The lesions of all pages, unless one page seems to be the background of the others."""
    whole_page = lesion.all()
    for part in others:
        more = page_lesion(part, name)
        whole_page |= more.all()
        lesion = lesion | more
    if lesion.all() and not whole_page:
        raise PagesError(
            f"{name} has {len(others) + 1} pages that together mark every pixel; leave out the page of the background"
        )
    return lesion
