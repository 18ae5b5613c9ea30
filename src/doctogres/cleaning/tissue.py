"""Tells stained tissue from drawings by colour, inside the silhouette of whatever lies on the glass.

Haematoxylin and eosin absorb green light most: a stained pixel's optical density is highest in the green channel,
whatever the stain's strength (Ruifrok & Johnston 2001, their H and E vectors). A drawing has no reason to obey that.
Densities are measured against the slide's own glass, which takes a scanner's tint out of the comparison.
"""

from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Verdict = Literal["tissue", "cartoon", "unsure"]

WORKING_SIZES: Final = (256, 640)  # pixels on the long side of the reduced copy
GLASS_STEP: Final = 8  # grey levels per bin in the search for the glass colour
GLASS_DISTANCE: Final = 14  # grey levels from the glass colour within which a pixel is glass
COLOURED_DENSITY: Final = 0.05  # spread of the three optical densities above which a pixel has a colour to judge
TISSUE_SHARE: Final = 0.6
CARTOON_SHARE: Final = 0.35
MIN_COLOURED_SHARE: Final = 0.3  # of the silhouette; a greyer slide is not called a cartoon
MIN_COLOURED_PIXELS: Final = 60


@dataclass(frozen=True)
class TissueColour:
    """What was measured inside the silhouette, and what it means.

    Attributes:
        verdict: tissue, cartoon or unsure.
        stain_share: share of the coloured pixels that absorb green as H&E does.
        coloured_share: share of the silhouette that has a colour at all.
        hue: mean hue in degrees, weighted by saturation.
        saturation: mean saturation, 0..1.
        inside_share: share of the picture that is silhouette.
    """

    verdict: Verdict
    stain_share: float
    coloured_share: float
    hue: float
    saturation: float
    inside_share: float

    @property
    def is_doubtful(self) -> bool:
        """Whether there is plenty of colour, and it is neither tissue's nor plainly something else's."""
        return self.verdict == "unsure" and self.coloured_share >= MIN_COLOURED_SHARE

    def __str__(self) -> str:
        """The numbers as they stand in a reason."""
        return (
            f"{self.stain_share:.0%} of its coloured pixels absorb green as H&E does, "
            f"mean hue {self.hue:.0f} degrees, saturation {self.saturation:.2f}"
        )


def working_copy(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture halved by area averaging, twice or until it fits, within 256 to 640 pixels on the long side.

    Halving is ten times as fast as reducing by a broken factor; an odd last row or column is left out.
    """
    small, halvings = rgb, 0
    while (longest := max(small.shape[:2])) > WORKING_SIZES[1] or (halvings < 2 and longest >= 2 * WORKING_SIZES[0]):
        height, width = max(1, small.shape[0] // 2), max(1, small.shape[1] // 2)
        whole = small[: 2 * height, : 2 * width]
        small = np.asarray(cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        halvings += 1
    return small


def glass_colour(small: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The most frequent light and nearly grey colour, (3,); white when the picture shows no glass."""
    pixels = small[::2, ::2].reshape(-1, 3)
    lowest = np.minimum(np.minimum(pixels[:, 0], pixels[:, 1]), pixels[:, 2])
    highest = np.maximum(np.maximum(pixels[:, 0], pixels[:, 1]), pixels[:, 2])
    light = (lowest >= 140) & (highest - lowest <= 40)
    if np.count_nonzero(light) < 0.02 * light.size:
        return np.full(3, 245.0)
    pixels = pixels[light]
    bins = pixels.astype(np.int32) // GLASS_STEP
    keys = (bins[:, 0] << 10) | (bins[:, 1] << 5) | bins[:, 2]
    most = np.bincount(keys).argmax()
    # The scanner's noise may straddle two bins; the mean of what lies around the fullest one does not.
    centre = np.array([most >> 10, most >> 5 & 31, most & 31]) * GLASS_STEP + GLASS_STEP // 2
    near = cv2.inRange(pixels[None], centre - GLASS_STEP, centre + GLASS_STEP)[0] > 0
    return np.asarray(pixels[near].mean(axis=0), dtype=np.float64)


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
    pixels = small[inside]
    if len(pixels) < MIN_COLOURED_PIXELS:
        return TissueColour("unsure", 0.0, 0.0, 0.0, 0.0, float(inside.mean()))
    levels = np.arange(1, 257, dtype=np.float32)
    red, green, blue = (np.log((glass[i] + 1) / levels).astype(np.float32)[pixels[:, i]] for i in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    coloured = spread > COLOURED_DENSITY
    stained = (green > (red + blue) / 2)[coloured]
    coloured_share = float(coloured.mean())
    stain_share = float(stained.mean()) if coloured.any() else 0.0
    hue, saturation = _hue_and_saturation(pixels)
    verdict: Verdict = "unsure"
    if coloured.sum() >= MIN_COLOURED_PIXELS and stain_share >= TISSUE_SHARE:
        verdict = "tissue"
    elif coloured_share >= MIN_COLOURED_SHARE and stain_share <= CARTOON_SHARE:
        verdict = "cartoon"
    return TissueColour(verdict, stain_share, coloured_share, hue, saturation, float(inside.mean()))


def _hue_and_saturation(pixels: NDArray[np.uint8]) -> tuple[float, float]:
    """Mean hue in degrees, weighted by saturation, and mean saturation of RGB pixels (pixels, 3)."""
    hsv = cv2.cvtColor(pixels[None], cv2.COLOR_RGB2HSV)[0]  # OpenCV's hue is in half degrees
    weights = np.bincount(hsv[:, 0], weights=hsv[:, 1], minlength=180)
    angle = np.deg2rad(2 * np.arange(180))
    mean = np.arctan2((weights * np.sin(angle)).sum(), (weights * np.cos(angle)).sum())
    return float(np.rad2deg(mean) % 360), float(hsv[:, 1].mean()) / 255
