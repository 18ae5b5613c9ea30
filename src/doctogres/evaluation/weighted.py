"""Statistics of weighted units (slides, or groups of them) for all resamples at once, from (resamples, units) weights.

Every slide belongs to a unit, 0 ... units - 1, and a unit's slides are drawn together: what is a sum over slides is
summed over each unit first.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from doctogres.errors import ParameterError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# The AUROC of few units with many slides (patches) comes from a table of pairs of units, as long as that is no larger
# than this many numbers per slide; on 50,000 patches of 500 slides it is eight times as fast as going through the ranks.
PAIRS_PER_SLIDE: Final = 20


def confusion_cells(truth: Ints, predicted: Ints, classes: int, units: Ints | None = None) -> Floats:
    """Returns (units, classes * classes): how many of the unit's slides fall in each confusion cell.

    Without `units`, (slides,), every slide is one.
    """
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ParameterError(f"truth and predictions must be (slides,), got shapes {truth.shape} and {predicted.shape}")
    both = np.concatenate([truth, predicted])
    if both.size and (both.min() < 0 or both.max() >= classes):
        raise ParameterError(f"class positions must be in 0 ... {classes - 1}, got {both.min()} ... {both.max()}")
    units = np.arange(len(truth)) if units is None else units
    count, size = int(units.max(initial=-1)) + 1, classes * classes
    cells = np.bincount(units * size + truth * classes + predicted, minlength=count * size)
    return cells.reshape(count, size).astype(np.float64)


def unit_sums(columns: NDArray[np.generic], units: Ints) -> Floats:
    """Returns the sums over each unit's slides, (slides, columns) -> (units, columns)."""
    return np.stack([np.bincount(units, column) for column in columns.T], axis=1)


def confusions(weights: Floats, cells: Floats) -> Floats:
    """Returns (resamples, truth, predicted) confusion matrices."""
    classes = round(cells.shape[1] ** 0.5)
    return (weights @ cells).reshape(-1, classes, classes)


def class_f1(matrices: Floats) -> Floats:
    """Returns F1 per class, (resamples, truth, predicted) -> (resamples, classes); NaN where the truth has none."""
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    present = matrices.sum(axis=2)
    f1 = ratio(2 * hits, present + matrices.sum(axis=1))
    return np.where(present > 0, f1, np.nan)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Returns the quotient, NaN where the denominator is zero."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1.0), np.nan)


def macro(per_class: Floats) -> Floats:
    """Returns the mean over the classes that are defined, (resamples, classes) -> (resamples,); NaN if none is."""
    defined = np.isfinite(per_class)
    return ratio(np.where(defined, per_class, 0.0).sum(axis=1), defined.sum(axis=1).astype(np.float64))


def auroc(scores: Floats, positive: NDArray[np.bool_], units: Ints) -> Callable[[Floats], Floats]:
    """Returns the function from weights to the area under the ROC curve, (resamples,); NaN where one side is missing.

    It is the chance that a positive slide outscores a negative one, equal scores counting half (Mann-Whitney).
    """
    positives, negatives = unit_sums(np.stack([positive, ~positive], axis=1), units).T
    pairs = len(positives) ** 2 <= PAIRS_PER_SLIDE * len(scores)
    wins = _wins_by_pair(scores, positive, units) if pairs else _wins_by_rank(scores, positive, units)
    return lambda weights: ratio(wins(weights), (weights @ positives) * (weights @ negatives))


def _wins_by_pair(scores: Floats, positive: NDArray[np.bool_], units: Ints) -> Callable[[Floats], Floats]:
    """Counts once how often the positives of one unit outscore the negatives of another; weights then multiply it."""
    count = int(units.max()) + 1
    upper = np.flatnonzero(positive)[np.argsort(scores[positive])]  # sorted, so that the searches below stay in cache
    lower = np.flatnonzero(~positive)[np.lexsort([scores[~positive], units[~positive]])]
    edges = np.searchsorted(units[lower], np.arange(count + 1))
    table = np.zeros((count, count))  # (positives' unit, negatives' unit)
    for unit, (start, end) in enumerate(pairwise(edges)):
        mine = scores[lower[start:end]]
        twice = sum(np.searchsorted(mine, scores[upper], side) for side in ("left", "right"))
        table[:, unit] = np.bincount(units[upper], twice / 2, minlength=count)
    return lambda weights: np.asarray(((weights @ table) * weights).sum(axis=1))


def _wins_by_rank(scores: Floats, positive: NDArray[np.bool_], units: Ints) -> Callable[[Floats], Floats]:
    order = np.argsort(scores, kind="stable")
    ranked, upper = scores[order], positive[order]
    tie_starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])

    def wins(weights: Floats) -> Floats:
        ordered = weights[:, units[order]]
        positives = np.add.reduceat(ordered * upper, tie_starts, axis=1)  # (resamples, distinct scores)
        negatives = np.add.reduceat(ordered * ~upper, tie_starts, axis=1)
        return np.asarray((positives * (negatives.cumsum(axis=1) - negatives / 2)).sum(axis=1))

    return wins
