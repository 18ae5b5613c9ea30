"""Tells stained tissue from cartoons by colour, inside the silhouette of whatever lies on the glass.

Haematoxylin and eosin absorb green light most: a stained pixel's optical density is highest in the green channel,
whatever the stain's strength (Ruifrok & Johnston 2001, their H and E vectors). A cartoon has no reason to obey that.
Densities are measured against the slide's own glass, which takes a scanner's tint out of the comparison.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal, NamedTuple, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from doctogres.slides.source import Picture, source_of

Kind = Literal["tissue", "cartoon", "unsure"]

WORKING_SIZES: Final = (256, 640)  # pixels on the long side of the reduced copy
GLASS_STEP: Final = 8  # grey levels per bin in the search for the glass colour
GLASS_DISTANCE: Final = 14  # grey levels from the glass colour within which a pixel is glass
COLOURED_DENSITY: Final = 0.05  # spread of the three optical densities above which a pixel has a colour to judge
TISSUE_SHARE: Final = 0.6
CARTOON_SHARE: Final = 0.35
MIN_COLOURED_SHARE: Final = 0.3  # of the silhouette; a greyer slide is not called a cartoon
ENOUGH_PIXELS: Final = 4096  # a share of them is known to one or two percent
MIN_COLOURED_PIXELS: Final = 15  # of the halved picture


@dataclass(frozen=True)
class TissueColour:
    """What was measured inside the silhouette, and what it means.

    Attributes:
        kind: tissue, cartoon or unsure.
        stain_share: share of the coloured pixels that absorb green as H&E does.
        coloured_share: share of the silhouette that has a colour at all.
        hue: mean hue in degrees, weighted by saturation.
        saturation: mean saturation, 0..1.
        inside_share: share of the picture that is silhouette.
    """

    kind: Kind
    stain_share: float
    coloured_share: float
    hue: float
    saturation: float
    inside_share: float

    @property
    def is_doubtful(self) -> bool:
        """Whether there is plenty of colour, and it is neither tissue's nor plainly something else's."""
        return self.kind == "unsure" and self.coloured_share >= MIN_COLOURED_SHARE

    def __str__(self) -> str:
        """The numbers as they stand in a reason."""
        return (
            f"{self.stain_share:.0%} of its coloured pixels absorb green as H&E does, "
            f"mean hue {self.hue:.0f} degrees, saturation {self.saturation:.2f}"
        )


class ReducedPicture(NamedTuple):
    """A picture as its colours are measured and masks are laid on it.

    Attributes:
        small: of `working_copy`, (rows, columns, 3).
        glass: of `glass_colour`, (3,).
        inside: of `silhouette`, (rows, columns).
    """

    small: NDArray[np.uint8]
    glass: NDArray[np.float64]
    inside: NDArray[np.bool_]

    @classmethod
    def of(cls, picture: Picture) -> Self:
        """Reduces a picture, (height, width, 3)."""
        small = working_copy(picture)
        glass = glass_colour(small)
        return cls(small, glass, silhouette(small, glass))


def working_copy(picture: Picture) -> NDArray[np.uint8]:
    """The picture halved by area averaging, twice or until it fits, within 256 to 640 pixels on the long side.

    Halving is ten times as fast as reducing by a broken factor; an odd last row or column is left out.
    """
    small, halvings = source_of(picture).working, 0
    while (longest := max(small.shape[:2])) > WORKING_SIZES[1] or (halvings < 2 and longest >= 2 * WORKING_SIZES[0]):
        small = halved(small)
        halvings += 1
    return small


def halved(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture (height, width, 3) at half its size, by area averaging."""
    height, width = max(1, rgb.shape[0] // 2), max(1, rgb.shape[1] // 2)
    whole = rgb[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def halved_mask(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask (height, width) that goes with a halved picture."""
    height, width = max(1, mask.shape[0] // 2), max(1, mask.shape[1] // 2)
    return np.ascontiguousarray(mask[: 2 * height : 2, : 2 * width : 2])


def glass_colour(small: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The most frequent light and nearly grey colour, (3,); white when the picture shows no glass."""
    part = halved(small)
    histogram = cv2.calcHist([part], [0, 1, 2], None, [256 // GLASS_STEP] * 3, [0, 256] * 3)
    counts = _could_be_glass() * histogram
    if counts.sum() < 0.02 * part.shape[0] * part.shape[1]:
        return np.full(3, 245.0)
    # The scanner's noise may straddle two bins; the mean of what lies around the fullest one does not.
    centre = np.array(np.unravel_index(int(counts.argmax()), counts.shape)) * GLASS_STEP + GLASS_STEP // 2
    near = cv2.inRange(part, centre - GLASS_STEP, centre + GLASS_STEP)
    return np.array(cv2.mean(part, near)[:3])


@cache
def _could_be_glass() -> NDArray[np.float32]:
    """1 for the bins of the colour histogram that are light and nearly grey, (32, 32, 32)."""
    levels = np.arange(256 // GLASS_STEP) * GLASS_STEP + GLASS_STEP // 2
    colours = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"))
    lowest, highest = colours.min(axis=0), colours.max(axis=0)
    return np.asarray((lowest >= 140) & (highest - lowest <= 40), dtype=np.float32)


def silhouette(small: NDArray[np.uint8], glass: NDArray[np.float64]) -> NDArray[np.bool_]:
    """True where something lies on the glass, (height, width); single specks are left out."""
    level = np.round(glass)
    inside = cv2.bitwise_not(cv2.inRange(small, level - GLASS_DISTANCE, level + GLASS_DISTANCE))
    opened = cv2.morphologyEx(inside, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    return np.asarray(opened > 0)


def judge_colour(small: NDArray[np.uint8], inside: NDArray[np.bool_], glass: NDArray[np.float64]) -> TissueColour:
    """Measures the colours of `small` (RGB) where `inside` holds and says whether they are stained tissue's.

    A slide with too little colour (a grey scanner, an almost empty slide) is `unsure`, never `cartoon`.
    """
    inside_share = cv2.countNonZero(inside.view(np.uint8)) / inside.size
    pixels = halved(small)[halved_mask(inside)]
    pixels = pixels[:: max(1, len(pixels) // ENOUGH_PIXELS)]
    if len(pixels) < MIN_COLOURED_PIXELS:
        return TissueColour("unsure", 0.0, 0.0, 0.0, 0.0, inside_share)
    levels = np.arange(1, 257, dtype=np.float32)
    densities = np.log((glass.astype(np.float32) + 1) / levels[:, None])  # (256, 3): level to optical density
    red, green, blue = (np.asarray(channel)[0] for channel in cv2.split(cv2.LUT(pixels[None], densities[None])))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    coloured = spread > COLOURED_DENSITY
    coloured_pixels = int(np.count_nonzero(coloured))
    stained = (2 * green > red + blue) & coloured
    coloured_share = coloured_pixels / len(pixels)
    stain_share = np.count_nonzero(stained) / max(1, coloured_pixels)
    hue, saturation = _hue_and_saturation(pixels)
    kind: Kind = "unsure"
    if coloured_pixels >= MIN_COLOURED_PIXELS and stain_share >= TISSUE_SHARE:
        kind = "tissue"
    elif coloured_share >= MIN_COLOURED_SHARE and stain_share <= CARTOON_SHARE:
        kind = "cartoon"
    return TissueColour(kind, stain_share, coloured_share, hue, saturation, inside_share)


def _hue_and_saturation(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean hue in degrees, weighted by saturation, and mean saturation of RGB pixels (pixels, 3)."""
    hsv = cv2.cvtColor(pixels[None], cv2.COLOR_RGB2HSV)[0]  # OpenCV's hue is in half degrees
    weights = np.bincount(hsv[:, 0], weights=hsv[:, 1], minlength=180)
    angle = np.deg2rad(2 * np.arange(180))
    mean = np.arctan2((weights * np.sin(angle)).sum(), (weights * np.cos(angle)).sum())
    return float(np.rad2deg(mean) % 360), float(hsv[:, 1].mean()) / 255
