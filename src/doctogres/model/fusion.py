"""How the outputs of several sources (a network on a view of the patches) become one slide's probabilities.

Training, evaluation and the served model combine with the functions here. Backbones on the same view see the same patches and
are combined patch by patch; views have patches of their own and are combined slide by slide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from doctogres.model.aggregation import LOG_FLOOR, aggregate
from doctogres.settings import ATTENTION

JOINED: Final = "features"  # one head on the joined features
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ViewOutputs:
    """The outputs of all backbones on one view.

    Attributes:
        logits: per backbone, (members, patches, classes), the mean over flips and rotations if there are any.
        slides: row numbers of each slide's patches.
        areas: (patches,) region areas in pixels.
        attended: per backbone, (slides, classes) probabilities by the attention heads; empty without them.
    """

    logits: Sequence[Array]
    slides: Sequence[npt.NDArray[np.int64]]
    areas: npt.NDArray[Any]
    attended: Sequence[Array] = ()

    def patches(self, *, fusion: str) -> Array:
        """Patch probabilities, (patches, classes).

        With `features`, the backbones' logits are summed before the softmax: for linear heads this is one head on the joined
        features. Otherwise the probabilities are averaged.
        """
        voters = np.sum(self.logits, axis=0) if fusion == JOINED else np.concatenate(self.logits)
        return np.asarray(softmax(voters).mean(axis=0))

    def pooled(self, *, aggregation: str, fusion: str) -> Array:
        """Slide probabilities before calibration, (slides, classes)."""
        if aggregation == ATTENTION:
            return np.asarray(np.mean(self.attended, axis=0))
        patches = self.patches(fusion=fusion)
        return np.stack(
            [aggregate(patches[rows], weights=self.areas[rows], method=aggregation) for rows in self.slides]
        )


def slide_probabilities(views: Sequence[ViewOutputs], *, aggregation: str, fusion: str) -> Array:
    """Slide probabilities before calibration, (slides, classes).

    With `features`, those of the views are multiplied: after a geometric mean over the patches (`log_mean`) this is a linear
    head on all views' mean features. Otherwise every backbone on every view counts the same.
    """
    pooled = [view.pooled(aggregation=aggregation, fusion=fusion) for view in views]
    if fusion == JOINED:
        return softmax(np.sum([np.log(np.maximum(of_view, LOG_FLOOR)) for of_view in pooled], axis=0))
    return np.asarray(np.average(pooled, axis=0, weights=[len(view.logits) for view in views]))


def softmax(logits: Array) -> Array:
    """Over the last axis."""
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))
