"""What is measured on one slide: its files are read once, hashed, decoded, and judged on a reduced copy."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from doctogres.cleaning.duplicates import Fingerprint, fingerprint
from doctogres.cleaning.slime import find_splat, remove_splat
from doctogres.cleaning.tissue import TissueColour, glass_colour, judge_colour, silhouette, working_copy
from doctogres.images import ImageError, picture_size, read_mask, read_rgb

THUMBNAIL_SIZE = 220
MIN_REST_SHARE = 0.1  # of the silhouette beside a splat; with less, the splat itself is judged


@dataclass(frozen=True)
class Evidence:
    """The measurements of one slide; `reason` is set when its files cannot be used at all.

    Attributes:
        lesion_pixels: true pixels of the mask.
        lesion_left: the same without those under a splat.
        splat_share: share of the picture that is splat, 0 without one.
        splat_in_mask: share of the splat that the mask calls lesion.
        thumbnail: JPEG file for the audit.
    """

    slide_id: str
    reason: str = ""
    width: int | None = None
    height: int | None = None
    image_md5: str | None = None
    mask_md5: str | None = None
    lesion_pixels: int = 0
    lesion_left: int = 0
    splat_share: float = 0.0
    splat_in_mask: float = 0.0
    colour: TissueColour | None = None
    fingerprint: Fingerprint | None = None
    thumbnail: bytes | None = None


def measure_slide(root: Path, slide_id: str, image: str, mask: str) -> Evidence:
    """Reads a slide's picture and mask (POSIX paths relative to `root`) and measures them."""
    image_data, image_problem = _read(root, image)
    mask_data, mask_problem = _read(root, mask)
    hashes = (_md5(image_data), _md5(mask_data))
    if image_problem or mask_problem:
        return Evidence(slide_id, image_problem or mask_problem, None, None, *hashes)
    try:
        rgb = read_rgb(image_data, name=image)
    except ImageError as error:
        return Evidence(slide_id, f"{error.code}: {error}", None, None, *hashes)
    height, width = rgb.shape[:2]
    small = working_copy(rgb)
    try:
        mask_size = picture_size(mask_data, name=mask)
        if mask_size != (width, height):
            problem = (
                f"size_mismatch: {mask} is {mask_size[0]} x {mask_size[1]} pixels but {image} is {width} x {height}"
            )
            return Evidence(slide_id, problem, width, height, *hashes, thumbnail=_thumbnail(small))
        lesion = read_mask(mask_data, name=mask)
    except ImageError as error:
        code = "unreadable_mask" if error.code == ImageError.code else error.code
        return Evidence(slide_id, f"{code}: {error}", width, height, *hashes, thumbnail=_thumbnail(small))
    return _measure(slide_id, rgb, small, lesion, hashes)


def _measure(
    slide_id: str,
    rgb: NDArray[np.uint8],
    small: NDArray[np.uint8],
    lesion: NDArray[np.bool_],
    hashes: tuple[str | None, str | None],
) -> Evidence:
    lesion_pixels = cv2.countNonZero(lesion.view(np.uint8))
    glass = glass_colour(small)
    inside = silhouette(small, glass)
    splat = find_splat(small)
    lesion_left, in_mask, judged = lesion_pixels, 0.0, inside
    if splat is not None:
        lesion_left = cv2.countNonZero(remove_splat(lesion, rgb).view(np.uint8))
        in_mask = (lesion_pixels - lesion_left) / (splat.mask.mean() * lesion.size)
        rest = inside & ~splat.mask
        judged = rest if rest.sum() >= MIN_REST_SHARE * inside.sum() else inside
    return Evidence(
        slide_id,
        "",
        rgb.shape[1],
        rgb.shape[0],
        *hashes,
        lesion_pixels=lesion_pixels,
        lesion_left=lesion_left,
        splat_share=0.0 if splat is None else splat.area_share,
        splat_in_mask=min(1.0, in_mask),
        colour=judge_colour(small, judged, glass),
        fingerprint=fingerprint(small, inside, glass, None if splat is None else splat.mask),
        thumbnail=_thumbnail(small),
    )


def _read(root: Path, name: str) -> tuple[bytes, str]:
    try:
        return (root / name).read_bytes(), ""
    except OSError as error:
        return b"", f"unreadable_file: {name} cannot be opened ({error.strerror or error}); check its rights"


def _md5(data: bytes) -> str | None:
    return hashlib.md5(data, usedforsecurity=False).hexdigest() if data else None


def _thumbnail(small: NDArray[np.uint8]) -> bytes:
    height, width = small.shape[:2]
    scale = min(1.0, THUMBNAIL_SIZE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    reduced = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", np.ascontiguousarray(reduced[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return encoded.tobytes()
