"""The measurements of one slide: its files are read once, hashed, decoded, and measured on a reduced copy."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from doctogres.cleaning.duplicates import PictureHash, hash_picture
from doctogres.cleaning.slime import find_splat, remove_splat
from doctogres.engine import map_slides
from doctogres.files import digest, file_digest
from doctogres.records.slide import Slide
from doctogres.slides.formats import ImageError, Source
from doctogres.slides.images import encode_jpeg
from doctogres.slides.levels import is_long
from doctogres.slides.masks import MarkedSlide, read_with_mask
from doctogres.slides.opening import open_slide
from doctogres.slides.plausibility import MaskFit, mask_fit
from doctogres.slides.reasons import Reason, written
from doctogres.slides.tissue import TissueColour, glass_colour, halved, judge_colour, silhouette, working_copy

MAX_THUMBNAIL_SIZE = 320  # pixels on the long side
MIN_REST_SHARE = 0.1  # of the silhouette that is not splat; with less, the splat's own colour is judged


@dataclass(frozen=True, slots=True)  # all of a cohort are in memory
class Evidence:
    """The measurements of one slide; `reason` is set when its files cannot be used at all.

    Attributes:
        mpp: microns per pixel that the file states.
        note: a reason to look at the slide that reading it gave.
        lesion_pixels: true pixels of the mask.
        lesion_left: the same, excluding those under a splat.
        fit: how the mask lies on the picture.
        splat_share: share of the picture that is splat, 0 without one.
        splat_in_mask: share of the splat that is marked as lesion.
        thumbnail: JPEG file for the audit page.
    """

    slide_id: str
    reason: str = ""
    width: int | None = None
    height: int | None = None
    image_md5: str | None = None
    mask_md5: str | None = None
    mpp: float | None = None
    note: str = ""
    lesion_pixels: int = 0
    lesion_left: int = 0
    fit: MaskFit = field(default_factory=MaskFit)
    splat_share: float = 0.0
    splat_in_mask: float = 0.0
    colour: TissueColour | None = None
    picture_hash: PictureHash | None = None
    thumbnail: bytes | None = None


def measure_slide(
    root: Path,
    slide_id: str,
    image: str,
    mask: str,
    annotations: str = "",
    known_hashes: Mapping[str, str] = MappingProxyType({}),
) -> Evidence:
    """Reads a slide's picture and mask (POSIX paths relative to `root`) and measures them.

    A file is hashed unless its MD5 is in `known_hashes`, by path.
    """
    image_data, image_problem = _read(root, image)
    mask_data, mask_problem = _read(root, mask)
    hashes = (known_hashes.get(image) or _md5(image_data), known_hashes.get(mask) or _md5(mask_data))
    if image_problem or mask_problem:
        return Evidence(slide_id, image_problem or mask_problem, None, None, *hashes)
    try:
        slide = read_with_mask(image_data, mask_data, name=image, mask_name=mask, annotations=annotations)
        small = working_copy(slide.picture)
    except ImageError as error:
        return _unusable(slide_id, error, image_data, image, hashes)
    return _measure(slide_id, slide, small, hashes)


@dataclass(frozen=True)
class Measuring:
    """Measures slides, in threads; `work` of `records.slide`.

    Attributes:
        root: the cohort's folder.
    """

    root: Path
    record: ClassVar = Evidence
    model: ClassVar = None

    def __call__(self, slides: Iterable[Slide], *, workers: int | None = None) -> Iterator[Evidence]:
        """Yields what was measured of each slide, in order."""
        return map_slides(self._one, slides, workers=workers)

    def _one(self, slide: Slide) -> Evidence:
        if slide.image is None or slide.mask is None:
            return Evidence(slide.slide_id, "its picture or its mask is missing")
        return measure_slide(self.root, slide.slide_id, slide.image, slide.mask, slide.annotations, slide.hashes)


def _unusable(
    slide_id: str, problem: ImageError, picture: Source, name: str, hashes: tuple[str | None, str | None]
) -> Evidence:
    """The evidence of a slide with an unusable file, with a thumbnail if the picture is readable."""
    try:
        slide = open_slide(picture, name=name)
        thumbnail = _thumbnail(working_copy(slide))
    except ImageError as error:
        return Evidence(slide_id, written(error.code, error), None, None, *hashes)
    code = Reason.UNREADABLE_MASK if problem.code == ImageError.code else problem.code
    return Evidence(slide_id, written(code, problem), *slide.size, *hashes, thumbnail=thumbnail)


def _measure(
    slide_id: str, slide: MarkedSlide, small: NDArray[np.uint8], hashes: tuple[str | None, str | None]
) -> Evidence:
    picture, lesion, note = slide
    lesion_pixels = cv2.countNonZero(lesion.view(np.uint8))
    glass = glass_colour(small)
    inside = silhouette(small, glass)
    splat = find_splat(small)
    lesion_left, in_mask, judged = lesion_pixels, 0.0, inside
    if splat is not None:
        lesion_left = cv2.countNonZero(remove_splat(lesion, picture).view(np.uint8))
        in_mask = (lesion_pixels - lesion_left) / (splat.mask.mean() * lesion.size)
        rest = inside & ~splat.mask
        judged = rest if rest.sum() >= MIN_REST_SHARE * inside.sum() else inside
    return Evidence(
        slide_id,
        "",
        *picture.size,
        *hashes,
        mpp=picture.mpp,
        note=note,
        lesion_pixels=lesion_pixels,
        lesion_left=lesion_left,
        fit=mask_fit(lesion, small, inside),
        splat_share=0.0 if splat is None else splat.area_share,
        splat_in_mask=min(1.0, in_mask),
        colour=judge_colour(small, judged, glass),
        picture_hash=hash_picture(small, inside, None if splat is None else splat.mask),
        thumbnail=_thumbnail(small),
    )


def _read(root: Path, name: str) -> tuple[Source, str]:
    """The content of a file, or the path of one that is too long to be kept, and what is wrong with it."""
    path = root / name
    try:
        with path.open("rb") as file:
            return (path if is_long(path) else file.read()), ""
    except OSError as error:
        problem = f"{name} cannot be opened ({error.strerror or error}); check its permissions"
        return b"", Reason.UNREADABLE_FILE.because(problem=problem)


def _md5(data: Source) -> str | None:
    if isinstance(data, Path):
        return file_digest(data, algorithm="md5", length=None)
    return digest(data, algorithm="md5", length=None) if data else None


def _thumbnail(small: NDArray[np.uint8]) -> bytes:
    while max(small.shape) > MAX_THUMBNAIL_SIZE:  # ten times as fast as `drawing.shrunk`, for every slide of a cohort
        small = halved(small)
    return encode_jpeg(small, 80)
