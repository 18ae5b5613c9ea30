"""Statistics of weighted units (slides, or groups of them) for all resamples at once, from (resamples, units) weights.

Every slide belongs to a unit, 0 ... units - 1, and a unit's slides are drawn together: sums over slides are first taken
within each unit.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from doctogres.errors import ParameterError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def confusion_cells(truth: Ints, predicted: Ints, classes: int, units: Ints | None = None) -> Floats:
    """Returns (units, classes * classes): how many of the unit's slides fall into each cell of the confusion matrix.

    Without `units`, (slides,), every slide is a unit.
    """
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ParameterError(
            f"truth and predictions must both have shape (slides,), got {truth.shape} and {predicted.shape}"
        )
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
    """Returns F1 per class, (resamples, truth, predicted) -> (resamples, classes); NaN for a class that is not in the truth."""
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    present = matrices.sum(axis=2)
    f1 = ratio(2 * hits, present + matrices.sum(axis=1))
    return np.where(present > 0, f1, np.nan)


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Returns the quotient, NaN where the denominator is zero."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1.0), np.nan)


def macro(per_class: Floats) -> Floats:
    """Returns the mean over the defined classes, (resamples, classes) -> (resamples,); NaN if none is defined."""
    defined = np.isfinite(per_class)
    return ratio(np.where(defined, per_class, 0.0).sum(axis=1), defined.sum(axis=1).astype(np.float64))


def auroc(scores: Floats, positive: NDArray[np.bool_], units: Ints) -> Callable[[Floats], Floats]:
    """Returns the function from weights to the area under the ROC curve, (resamples,); NaN without positives or negatives.

    It is the probability that a positive slide scores higher than a negative one, ties counting half (Mann-Whitney). The
    slides are ranked once: the negatives' weights are accumulated in the order of their scores, and every positive looks
    up the weight below it.
    """
    upper = np.flatnonzero(positive)
    lower = np.flatnonzero(~positive)[np.argsort(scores[~positive])]
    starts, ends = (np.searchsorted(scores[lower], scores[upper], side) for side in ("left", "right"))

    def area(weights: Floats) -> Floats:
        below = np.zeros((len(weights), len(lower) + 1))
        weights[:, units[lower]].cumsum(axis=1, out=below[:, 1:])
        positives = weights[:, units[upper]]
        wins = np.einsum("ij,ij->i", positives, below[:, starts] + below[:, ends]) / 2
        return ratio(wins, positives.sum(axis=1) * below[:, -1])

    return area
