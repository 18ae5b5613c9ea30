"""Conformal limits from out-of-fold scores, and how often they hold.

The model's networks are fitted to other slides than those that made the scores, as in cross-conformal prediction (Vovk,
Cross-conformal predictors, 2015), which has no exact guarantee; `evaluate` therefore measures how often they hold.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from doctogres.evaluation.bootstrap import Estimate, bootstrap
from doctogres.evaluation.weighted import unit_sums
from doctogres.model.conformal import LabelSets, NoveltyLimit


def group_quantile(scores: NDArray[np.float64], groups: Sequence[str], level: float) -> float:
    """The score that a slide of a new group stays at or below with probability `level`; infinite with too few groups.

    Slides of one patient are not exchangeable with slides of another; patients are. With G groups, each of the n scores of a
    group has weight 1 / (n (G + 1)), and the new group's, taken as infinite, 1 / (G + 1): hierarchical conformal prediction
    (Lee, Barber and Willett, Distribution-free inference with hierarchical data, 2023). With one slide per group this is the
    usual rank, ceil((G + 1) level).

    Args:
        scores: (slides,); a slide may occur several times, with its group.
        groups: (slides,) patients.
        level: in (0, 1).
    """
    _, units, sizes = np.unique(np.asarray(groups, str), return_inverse=True, return_counts=True)
    order = np.argsort(scores, kind="stable")
    weights = (1 / sizes[units])[order]
    reached = np.flatnonzero(weights.cumsum() >= level * (len(sizes) + 1) - 1e-9)
    return float(scores[order[reached[0]]]) if len(reached) else math.inf


QUANTILES: Final = (5, 25, 50, 75, 95, 99)  # percent, in the card


def novelty_limit(distances: NDArray[np.float64], groups: Sequence[str], *, level: float) -> NoveltyLimit:
    """The distance that a slide like the training slides, of a new group, stays within with probability `level`.

    With fewer than level / (1 - level) groups there is no such distance; it is then the highest one.

    Args:
        distances: (slides,) of slides from the patches of a training that left them out.
        groups: (slides,) patients.
        level: in (0, 1).
    """
    quantile, highest = group_quantile(distances, groups, level), float(distances.max())
    limit = min(quantile, highest)
    return NoveltyLimit(
        level=level,
        limit=limit,
        highest=math.isinf(quantile),
        quantiles={str(share): float(np.percentile(distances, share) / limit) for share in QUANTILES},
        distances=len(distances),
        groups=len(set(groups)),
    )


def label_sets(
    truth: NDArray[np.int64], probabilities: NDArray[np.float64], groups: Sequence[str], *, target: float
) -> LabelSets:
    """The threshold at which the labels of a slide of a new group hold the truth with probability `target`.

    A label's score is one minus its probability: of all sets with this coverage, those are the smallest (Sadinle, Lei and
    Wasserman, Least ambiguous set-valued classifiers with bounded error levels, 2019).

    Args:
        truth: (slides,) class positions.
        probabilities: (slides, classes), out of fold, calibrated.
        groups: (slides,) patients.
        target: in (0, 1).
    """
    highest = group_quantile(-probabilities[np.arange(len(truth)), truth], groups, target)
    return LabelSets(
        target=target, threshold=max(0.0, -highest), slides=len(truth), groups=len(np.unique(np.asarray(groups, str)))
    )


def mean_metrics(columns: Mapping[str, NDArray[Any]], *, groups: Sequence[str], **options: Any) -> dict[str, Estimate]:
    """The mean of each column over the slides, with its interval.

    Args:
        columns: name -> (slides,) numbers or truth values.
        groups: (slides,) patients; whole groups are resampled.
        options: of `bootstrap`.
    """
    units = np.unique(np.asarray(groups, str), return_inverse=True)[1]
    sums = unit_sums(np.stack([np.ones(len(units)), *columns.values()], axis=1), units)

    def statistics(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        total, *others = (weights @ sums).T
        return {name: values / total for name, values in zip(columns, others, strict=True)}

    return bootstrap(statistics, units, **options)
