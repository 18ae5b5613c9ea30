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
from doctogres.settings import ATTENTION, AnswerSettings

JOINED: Final = "features"  # one head on the joined features
MULTIPLIED: Final = "log_probabilities"
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ViewOutputs:
    """The outputs of all backbones on one view.

    Attributes:
        view: its name.
        logits: per backbone, (members, patches, classes), the mean over flips and rotations if there are any.
        slides: row numbers of each slide's patches.
        areas: (patches,) region areas in pixels.
        attended: per backbone, (slides, classes) probabilities by the attention heads; empty without them.
        log_distances: per backbone, (members, patches) from the training patches; empty if the model has none.
    """

    view: str
    logits: Sequence[Array]
    slides: Sequence[npt.NDArray[np.int64]]
    areas: npt.NDArray[Any]
    attended: Sequence[Array] = ()
    log_distances: Sequence[Array] = ()

    def patches(self, *, fusion: str) -> Array:
        """Patch probabilities, (patches, classes).

        With `features`, the backbones' logits are summed before the softmax: for linear heads this is one head on the joined
        features. Otherwise the probabilities are averaged.
        """
        voters = np.sum(self.logits, axis=0) if fusion == JOINED else np.concatenate(self.logits)
        return np.asarray(softmax(voters).mean(axis=0))

    def distances(self) -> Array:
        """Of the patches from the training patches, (patches,): the geometric mean, as members and backbones differ in scale."""
        return np.asarray(np.exp(np.concatenate(self.log_distances).mean(axis=0)))

    def pooled(self, *, aggregation: str, fusion: str) -> Array:
        """Slide probabilities before calibration, (slides, classes)."""
        if aggregation == ATTENTION:
            return np.asarray(np.mean(self.attended, axis=0))
        patches = self.patches(fusion=fusion)
        return np.stack(
            [aggregate(patches[rows], weights=self.areas[rows], method=aggregation) for rows in self.slides]
        )


def slide_probabilities(views: Sequence[ViewOutputs], answer: AnswerSettings, *, aggregation: str = "") -> Array:
    """Slide probabilities before calibration, (slides, classes).

    With `features`, those of the views are multiplied: after a geometric mean over the patches (`log_mean`) this is a linear
    head on all views' mean features. Otherwise every backbone on every view counts the same, unless `view_weights` says else.

    Args:
        views: what the model says of every view.
        answer: how they are combined.
        aggregation: another one than the answer's.
    """
    pooled = np.stack(
        [view.pooled(aggregation=aggregation or answer.aggregation, fusion=answer.fusion) for view in views]
    )
    if answer.fusion == JOINED:
        return softmax(logs(pooled).sum(axis=0))
    weights = [len(view.logits) * answer.view_weight(view.view) for view in views]
    if answer.fusion == MULTIPLIED:
        return softmax(np.average(logs(pooled), axis=0, weights=weights))
    return np.asarray(np.average(pooled, axis=0, weights=weights))


def slide_distances(views: Sequence[ViewOutputs]) -> Array:
    """Of slides from the training patches, (slides,): the mean over a slide's patches, the geometric mean over the views."""
    means = [[distances[rows].mean() for rows in view.slides] for view in views for distances in [view.distances()]]
    return np.asarray(np.exp(np.log(means).mean(axis=0)))


def logs(probabilities: Array) -> Array:
    """Logarithms of probabilities, which may be zero."""
    return np.asarray(np.log(np.maximum(probabilities, LOG_FLOOR)))


def softmax(logits: Array) -> Array:
    """Over the last axis."""
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(odds / odds.sum(axis=-1, keepdims=True))
