"""Finds glossy green splats that were painted onto a slide, and removes them from the mask.

A splat is a compact, strongly saturated green shape with gloss: shades from dark to bright, or white highlights.
Green ink is a thin stroke; green-tinted tissue is pale; a cartoon has no tissue around its green.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from doctogres.slides.source import Picture, source_of
from doctogres.slides.tissue import halved, working_copy

GREEN_HUE: Final = (35, 85)  # OpenCV's half degrees
CORE_SATURATION: Final = 150  # of 255, the minimum median saturation of a splat
EDGE_SATURATION: Final = 90  # of 255, where its blended rim ends
MIN_VALUE: Final = 60
MIN_AREA_SHARE: Final = 0.002  # of the picture
MIN_COMPACTNESS: Final = 0.18  # area of the largest inscribed circle / area; a stroke of 1:6 has about 0.13
MIN_BRIGHT_SHARE: Final = 0.3  # of the region brighter than BRIGHT_VALUE in its strongest channel
BRIGHT_VALUE: Final = 140
RIM: Final = 2  # pixels of the working copy added around, for anti-aliased edges


@dataclass(frozen=True)
class Splat:
    """The splats of a picture, in its pixel coordinates.

    Attributes:
        area_share: share of the picture's pixels.
        outlines: one closed polygon per splat, (points, 2), x then y, around its blended rim.
        mask: true on the splats with their highlights and rims, (height, width).
    """

    area_share: float
    outlines: tuple[NDArray[np.int32], ...]
    mask: NDArray[np.bool_]


def find_splat(rgb: NDArray[np.uint8]) -> Splat | None:
    """The splats of a picture (height, width, 3), or None.

    The search runs on a reduced copy; mask and outlines are scaled back to the picture's size.
    """
    small = working_copy(rgb)
    region = _splat_region(small)
    if not region.any():
        return None
    rim = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RIM + 1, 2 * RIM + 1))
    size = (rgb.shape[1], rgb.shape[0])
    mask = cv2.resize(cv2.dilate(region, rim), size, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outlines = tuple(np.asarray(contour[:, 0], dtype=np.int32) for contour in contours)
    return Splat(float(region.mean()), outlines, mask.astype(np.bool_))


def remove_splat(mask: NDArray[np.bool_], picture: Picture) -> NDArray[np.bool_]:
    """The lesion mask (height, width) without the splats in the picture."""
    splat = find_splat(source_of(picture).working)
    if splat is None:
        return mask
    hidden = cv2.resize(splat.mask.view(np.uint8), mask.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return mask & ~hidden.view(np.bool_)


def _splat_region(small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    splats = np.zeros(small.shape[:2], dtype=np.uint8)
    coarse, _ = _green(
        halved(small)
    )  # most slides have no green at all, which a quarter of the pixels is enough to tell
    if cv2.countNonZero(coarse) < MIN_AREA_SHARE / 2 * coarse.size:
        return splats
    green, hsv = _green(small)
    closed = cv2.morphologyEx(green, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for contour in contours:
        region = np.zeros_like(splats)
        cv2.drawContours(region, [contour], 0, 1, cv2.FILLED)  # filled: white highlights belong to the splat
        if _is_splat(region, hsv):
            splats |= region
    return splats


def _green(rgb: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """255 where a pixel is strongly green, (height, width), and the picture's hue, saturation and value."""
    hsv = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV), dtype=np.uint8)
    low, high = np.array([GREEN_HUE[0], EDGE_SATURATION, MIN_VALUE]), np.array([GREEN_HUE[1], 255, 255])
    return np.asarray(cv2.inRange(hsv, low, high), dtype=np.uint8), hsv


def _is_splat(region: NDArray[np.uint8], hsv: NDArray[np.uint8]) -> bool:
    area = cv2.countNonZero(region)
    if area < MIN_AREA_SHARE * region.size:
        return False
    padded = cv2.copyMakeBorder(region, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    radius = float(cv2.distanceTransform(padded, cv2.DIST_L2, 3).max())
    if np.pi * radius**2 < MIN_COMPACTNESS * area:
        return False
    inside = hsv[region.astype(np.bool_)]
    strong = np.median(inside[:, 1]) >= CORE_SATURATION
    bright = (inside[:, 2] >= BRIGHT_VALUE).mean() >= MIN_BRIGHT_SHARE
    return bool(strong and bright)
