"""The patches of a slide that are classified, and the prediction for the slide. Does not import torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.slides.reasons import Reason

MaskSource = Literal["given", "tissue"]


@dataclass(frozen=True)
class CutSlide:
    """The patches of a slide that are classified."""

    boxes: Mapping[str, npt.NDArray[np.int64]]  # view -> (patches, 5) as in `regions.mask_regions`
    pixels: Mapping[str, npt.NDArray[np.uint8]]  # view -> (patches, size, size, 3)
    dropped: int  # number of regions left out
    mask_source: MaskSource
    warnings: tuple[str, ...]
    doubt: str = ""  # the reason why the mask is implausible, if it is

    @property
    def regions(self) -> npt.NDArray[np.int64]:
        """The patches of the first view."""
        return next(iter(self.boxes.values()))

    @property
    def size(self) -> int:
        """The number of patches in all views."""
        return sum(map(len, self.pixels.values()))

    @property
    def nbytes(self) -> int:
        """The size of the patches in memory."""
        return sum(pixels.nbytes for pixels in self.pixels.values())


@dataclass(frozen=True)
class SlideAnswer:
    """The prediction for one slide."""

    label: str
    probabilities: npt.NDArray[np.float64]  # (classes,), calibrated
    raw: npt.NDArray[np.float64]  # (classes,), before the temperature
    confidence: float  # the label's probability
    reasons: tuple[str, ...]  # why the model abstains; empty if it does not
    patches: pd.DataFrame  # a row per patch of the first view: x, y, width, height, area, label, novelty
    patch_probabilities: npt.NDArray[np.float64]  # (patches, classes), not calibrated
    dropped: int  # number of regions left out
    mask_source: MaskSource
    warnings: tuple[str, ...]  # why this prediction may be less reliable than the model's score suggests
    labels: tuple[str, ...] = ()  # the most probable first; one is the truth as often as the model was asked for
    labels_valid: bool = False  # the slide is of the kind for which that was measured
    novelty: float | None = None  # above 1 the slide is unlike the training slides; None if the model cannot tell

    @property
    def abstained(self) -> bool:
        """Whether the model abstains."""
        return bool(self.reasons)

    @property
    def novel(self) -> bool:
        """Whether the slide is unlike the training slides."""
        return any(Reason.of(reason) == Reason.NOVEL for reason in self.reasons)

    @property
    def valid_labels(self) -> str:
        """The labels of which one is the truth as often as the model was asked for; empty where that is not known."""
        return "; ".join(self.labels) if self.labels_valid else ""

    @property
    def note(self) -> str:
        """Why the model is not sure and its warnings as one text, each once."""
        return "; ".join(dict.fromkeys((*self.reasons, *self.warnings)))
