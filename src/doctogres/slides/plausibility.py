"""Whether a mask can belong to its picture: the one judgement that cleaning, evaluation, prediction and serving share.

A mask fits where its lesions lie on the tissue. Without a model only what cannot be right anywhere is doubted; a model
knows the masks that it was trained on (`MaskRange`, recorded in its card), and doubts what is far from all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from doctogres.slides.reasons import Reason
from doctogres.slides.source import Picture
from doctogres.slides.tissue import ReducedPicture

MAX_SHARE: Final = 0.9  # of the picture that is lesion
MAX_ON_GLASS: Final = 0.5  # of the lesions
LEAST_GLASS: Final = 0.02  # of the picture; smaller gaps are lumens, vessels and tears, which a lesion may hold
NOTICEABLE_ON_GLASS: Final = 0.03  # of the lesions; with less, a turn that fits better says nothing
SLIGHT_ON_GLASS: Final = 0.01  # the same where the stain speaks for the turn, too
BETTER_CONTRAST: Final = 0.1  # of the area under the curve by which a turned mask divides the stain better
FAR_BETTER_CONTRAST: Final = 0.25  # the same between two masks of which one is right
FAR_LESS_GLASS: Final = 0.2  # by which the right one of two masks lies less on glass
SIZE_FACTOR: Final = 4  # beyond the regions of the training
MAX_DOUBTED: Final = 0.3  # of the training's masks; where more are doubtful, they are what the model is trained on
DOUBTS: Final = (Reason.FULL_MASK, Reason.MASK_ON_GLASS, Reason.MASK_REGIONS, Reason.MASK_SCALE)


class MaskRange(BaseModel):
    """The masks that a model was trained on: the limits of their measures over its training slides.

    Attributes:
        share: highest share of a picture that is lesion.
        on_glass: highest share of a mask's lesions on glass.
        regions: highest number of regions that were cut from a slide.
        sides: lowest and highest median longer side of a slide's regions in pixels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float
    on_glass: float
    regions: int
    sides: tuple[float, float]

    @classmethod
    def of(cls, slides: Sequence[tuple["MaskFit", NDArray[Any], str]]) -> Self | None:
        """The range of the training slides; None without slides.

        Args:
            slides: of each, how its mask lies, the longer sides of its regions, and its reason in the cohort table:
                masks that cleaning doubted do not widen the range, unless they are many.
        """
        plain = [slide for slide in slides if Reason.of(slide[2]) not in DOUBTS]
        counted = plain if len(slides) - len(plain) <= MAX_DOUBTED * len(slides) else slides
        counted = [slide for slide in counted if len(slide[1])]
        if not counted:
            return None
        medians = [float(np.median(sides)) for _, sides, _ in counted]
        return cls(
            share=max(fit.share for fit, _, _ in counted),
            on_glass=max(fit.on_glass for fit, _, _ in counted),
            regions=max(len(sides) for _, sides, _ in counted),
            sides=(min(medians), max(medians)),
        )


@dataclass(frozen=True)
class MaskFit:
    """How a mask lies on its picture.

    Attributes:
        share: of the picture that is lesion.
        on_glass: share of the lesions that lies on glass.
        turned: how the mask must be rotated or flipped to fit better, empty if it fits as it is.
        turned_on_glass: share of the lesions on glass if it is turned so.
        inverted_on_glass: the share on glass of what the mask leaves out.
    """

    share: float = 0.0
    on_glass: float = 0.0
    turned: str = ""
    turned_on_glass: float = 0.0
    inverted_on_glass: float = 1.0


class _Ground:
    """A reduced picture as masks are laid on it: where glass and tissue are, and how dark."""

    def __init__(self, small: NDArray[np.uint8], inside: NDArray[np.bool_]):
        """Takes the picture of `tissue.working_copy` and its silhouette."""
        self.small, self.inside, self.glass = small, inside, open_glass(inside)

    @cached_property
    def dark(self) -> NDArray[np.uint8]:
        """How dark each pixel is: only masks that lie beside the tissue are asked for their contrast."""
        return 255 - np.asarray(cv2.cvtColor(self.small, cv2.COLOR_RGB2GRAY), np.uint8)

    @classmethod
    def of(cls, picture: Picture) -> Self:
        reduced = ReducedPicture.of(picture)
        return cls(reduced.small, reduced.inside)

    def reduced(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask of the whole picture at this size."""
        whole = np.ascontiguousarray(mask).view(np.uint8)
        return cv2.resize(whole, self.glass.shape[::-1], interpolation=cv2.INTER_NEAREST).view(np.bool_)

    def on_glass(self, lesion: NDArray[np.bool_]) -> float:
        """The share of a reduced mask that lies on glass."""
        pixels = np.count_nonzero(lesion)
        return np.count_nonzero(lesion & self.glass) / pixels if pixels else 0.0

    def contrast(self, lesion: NDArray[np.bool_]) -> float:
        """See `contrast_of`."""
        return contrast_of(self.dark, lesion, self.inside)


def fit_of(picture: Picture, mask: NDArray[np.bool_]) -> MaskFit:
    """Measures how a mask, (height, width), lies on its picture, (height, width, 3)."""
    return _fit(mask, _Ground.of(picture))


def mask_fit(mask: NDArray[np.bool_], small: NDArray[np.uint8], inside: NDArray[np.bool_]) -> MaskFit:
    """`fit_of` where the picture is reduced already.

    Args:
        mask: (height, width), true on lesions.
        small: the reduced picture of `tissue.working_copy`, (rows, columns, 3).
        inside: its silhouette, (rows, columns).
    """
    return _fit(mask, _Ground(small, inside))


def _fit(mask: NDArray[np.bool_], ground: _Ground) -> MaskFit:
    lesion = ground.reduced(mask)
    on_glass = ground.on_glass(lesion)
    turned, turned_on_glass = _better_turn(lesion, on_glass, ground)
    return MaskFit(
        share=cv2.countNonZero(mask.view(np.uint8)) / mask.size,
        on_glass=on_glass,
        turned=turned,
        turned_on_glass=turned_on_glass,
        inverted_on_glass=ground.on_glass(~lesion) if not lesion.all() else 1.0,
    )


def doubt_about(
    fit: MaskFit, trained: MaskRange | None = None, sides: NDArray[Any] | None = None, *, slide: str = ""
) -> str:
    """Why a mask cannot be right, as a reason; empty if it can.

    Args:
        fit: how the mask lies on its picture.
        trained: the masks of the model that is to answer.
        sides: (regions,) longer sides of the mask's regions in pixels, where they are to be compared with `trained`.
        slide: what the mask is called; "the mask" if empty.
    """
    mask = f"the mask of {slide}" if slide else "the mask"
    most_share, most_on_glass = MAX_SHARE, MAX_ON_GLASS
    if trained is not None:
        most_share = max(trained.share, min(MAX_SHARE, max(2 * trained.share, trained.share + 0.2)))
        most_on_glass = max(trained.on_glass, min(MAX_ON_GLASS, max(2 * trained.on_glass, 0.1)))
    is_inverse = fit.share > 0.5 and fit.inverted_on_glass <= min(0.1, most_on_glass)
    if fit.share > most_share:
        hint = "is it blank?" if fit.share == 1 else "is it inverted?"
        return Reason.FULL_MASK.because(mask=mask, share=fit.share, hint=hint)
    if fit.on_glass > most_on_glass or (fit.turned and not is_inverse):
        hint = f"; {fit.turned}, it would be {fit.turned_on_glass:.0%}" if fit.turned else ""
        hint = "; is it inverted?" if is_inverse else hint
        return Reason.MASK_ON_GLASS.because(mask=mask, share=fit.on_glass, hint=hint)
    return (
        _doubt_about_regions(mask, trained, sides) if trained is not None and sides is not None and len(sides) else ""
    )


def _doubt_about_regions(mask: str, trained: MaskRange, sides: NDArray[Any]) -> str:
    if len(sides) > SIZE_FACTOR * trained.regions:
        return Reason.MASK_REGIONS.because(mask=mask, regions=len(sides), most=trained.regions)
    side, (low, high) = float(np.median(sides)), trained.sides
    if not low / SIZE_FACTOR <= side <= high * SIZE_FACTOR:
        return Reason.MASK_SCALE.because(mask=mask, side=side, low=low, high=high)
    return ""


def better_fit(rgb: NDArray[np.uint8], first: NDArray[np.bool_], second: NDArray[np.bool_]) -> int | None:
    """Which of two masks, (height, width), fits the picture better: 0, 1, or None where that is not certain.

    One of them must lie less on glass and divide the stain no worse, or divide the stain far better and lie on no more
    glass, or lie on far less glass.
    """
    ground = _Ground.of(rgb)
    lesions = [ground.reduced(mask) for mask in (first, second)]
    return better_of(list(map(ground.on_glass, lesions)), list(map(ground.contrast, lesions)))


def better_of(on_glass: Sequence[float], contrast: Sequence[float]) -> int | None:
    """Which of two masks fits better, from their shares on glass and how well they divide the stain."""
    for better, worse in ((0, 1), (1, 0)):
        glass_less, gain = on_glass[worse] - on_glass[better], contrast[better] - contrast[worse]
        if (
            glass_less > FAR_LESS_GLASS
            or (glass_less > SLIGHT_ON_GLASS and gain > 0)
            or (glass_less > -2 * SLIGHT_ON_GLASS and gain > FAR_BETTER_CONTRAST)
        ):
            return better
    return None


def open_glass(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """True on the glass around the tissue, (rows, columns): what the silhouette leaves out, small gaps aside."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats((~inside).view(np.uint8), connectivity=4)
    large = stats[:, cv2.CC_STAT_AREA] >= LEAST_GLASS * inside.size
    large[0] = False  # the silhouette itself
    return np.asarray(large[pieces])


def _better_turn(lesion: NDArray[np.bool_], on_glass: float, ground: _Ground) -> tuple[str, float]:
    """The turn that brings a misplaced mask onto the tissue, and the share that then still lies on glass.

    Two thirds of what lies on glass must come off it and the turned mask divide the stain no worse, or half and the
    turned mask divide it better. `benchmarks/masks.py` counts what that finds.
    """
    if on_glass <= SLIGHT_ON_GLASS:
        return "", on_glass
    turns = {
        "flipped vertically": lesion[::-1],
        "flipped horizontally": lesion[:, ::-1],
        "rotated by 180 degrees": lesion[::-1, ::-1],
    }
    if lesion.shape[0] == lesion.shape[1]:
        turns |= {
            "rotated by 90 degrees": np.rot90(lesion),
            "rotated by 270 degrees": np.rot90(lesion, 3),
            "transposed": lesion.T,
            "transposed and rotated by 180 degrees": lesion[::-1, ::-1].T,
        }
    left, name = min((ground.on_glass(turned), name) for name, turned in turns.items())
    gain = ground.contrast(turns[name]) - ground.contrast(lesion)
    return (name, left) if turn_fits_better(on_glass, left, gain) else ("", on_glass)


def turn_fits_better(on_glass: float, left: float, gain: float) -> bool:
    """Whether a turned mask fits clearly better.

    Args:
        on_glass: share of the mask on glass as it is; over half it is doubted anyhow, and the turn only a hint.
        left: the share if it is turned.
        gain: by how much better the turned mask divides the stain, see `contrast_of`.
    """
    if on_glass > MAX_ON_GLASS:
        return left < on_glass / 3
    is_plain = on_glass > NOTICEABLE_ON_GLASS and left < on_glass / 3
    return left < on_glass / 2 and gain > (0 if is_plain else BETTER_CONTRAST)


def contrast_of(dark: NDArray[np.uint8], lesion: NDArray[np.bool_], inside: NDArray[np.bool_]) -> float:
    """How often a pixel of the lesions is darker than one of the tissue around them: the area under the ROC curve."""
    counts = [np.bincount(dark[inside & part], minlength=256) for part in (lesion, ~lesion)]
    if not all(count.any() for count in counts):
        return 0.5
    marked, rest = (count / count.sum() for count in counts)
    return float(marked @ (rest.cumsum() - rest / 2))
