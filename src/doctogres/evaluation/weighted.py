"""Statistics of weighted slides: each takes (resamples, slides) weights and answers for all resamples at once."""

import numpy as np
from numpy.typing import NDArray

from doctogres.errors import ParameterError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def confusion_cells(truth: Ints, predicted: Ints, classes: int) -> Floats:
    """Returns (slides, classes * classes): a one in the confusion cell that each slide falls in."""
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise ParameterError(f"truth and predictions must be (slides,), got shapes {truth.shape} and {predicted.shape}")
    both = np.concatenate([truth, predicted])
    if both.size and (both.min() < 0 or both.max() >= classes):
        raise ParameterError(f"class positions must be in 0 ... {classes - 1}, got {both.min()} ... {both.max()}")
    cells = np.zeros((len(truth), classes * classes))
    cells[np.arange(len(truth)), truth * classes + predicted] = 1.0
    return cells


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


def auroc(weights: Floats, scores: Floats, positive: NDArray[np.bool_]) -> Floats:
    """Returns the area under the ROC curve, (resamples,); NaN where one side is missing.

    It is the chance that a positive slide outscores a negative one, equal scores counting half (Mann-Whitney).
    """
    order = np.argsort(scores, kind="stable")
    ranked, positive = scores[order], positive[order]
    tie_starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    ordered = weights[:, order]
    positives = np.add.reduceat(ordered * positive, tie_starts, axis=1)  # (resamples, distinct scores)
    negatives = np.add.reduceat(ordered * ~positive, tie_starts, axis=1)
    below = negatives.cumsum(axis=1) - negatives / 2
    return ratio((positives * below).sum(axis=1), positives.sum(axis=1) * negatives.sum(axis=1))
