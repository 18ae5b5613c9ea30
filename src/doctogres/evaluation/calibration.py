"""Fits the temperature of slide probabilities, and the confidence below which a slide is not answered."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from doctogres.errors import ParameterError
from doctogres.evaluation.metrics import calibration_gaps, canonical_order, checked, log_losses
from doctogres.model.temperature import (
    ABSTAIN_ALWAYS,
    COLDEST,
    HOTTEST,
    Calibration,
    apply_temperature,
    relative_logits,
)

FOLDS: Final = 10  # of the groups, when a temperature is judged on slides that it was not fitted on


def fit_temperature(truth: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Returns the T in [0.05, 20] for which softmax(ln p / T) has the least log-loss; above 1 for an over-confident model.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017. Probabilities are floored at 1e-15 times the row's
    highest. A few slides that are all right would make every confidence one; as in Platt's scaling (Advances in Large
    Margin Classifiers, 1999), the truth therefore counts (n + 1) / (n + 2) of n slides, and the other classes share the
    rest. The log-loss is convex in 1/T, so its slope has one zero; where it has none, T is the bound it falls to. Where
    the slope is zero everywhere (all rows uniform), T is 1.

    Args:
        truth: (slides,) class positions.
        probabilities: (slides, classes), rows sum to one.

    Raises:
        ParameterError: no slides, a position that is no class, or rows that are no probabilities.
    """
    from scipy.optimize import brentq  # nearly two seconds to import, and serving needs this module without it

    labels, rows = _checked(truth, probabilities)
    logits = relative_logits(rows)
    certain = (len(labels) + 1) / (len(labels) + 2)
    wanted = np.full(rows.shape, (1 - certain) / max(1, rows.shape[1] - 1))
    wanted[np.arange(len(labels)), labels] = certain
    right = (wanted * logits).sum(axis=1)

    def slope(sharpness: float) -> float:
        """Of the mean log-loss in 1/T; it never falls."""
        odds = np.exp(sharpness * logits)
        return float(((odds * logits).sum(axis=1) / odds.sum(axis=1) - right).mean())

    at_hottest, at_coldest = slope(1 / HOTTEST), slope(1 / COLDEST)
    if at_hottest >= 0 >= at_coldest:
        return 1.0
    if at_coldest <= 0:
        return COLDEST
    if at_hottest >= 0:
        return HOTTEST
    return float(1 / brentq(slope, 1 / HOTTEST, 1 / COLDEST))


def calibrate(
    truth: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    *,
    target_precision: float,
    groups: Sequence[str] | None = None,
) -> Calibration:
    """Returns the temperature, and the threshold that keeps the share of right answers at `target_precision`.

    The threshold is the lowest (calibrated) confidence at which the slides at or above it reach the target, slides of
    equal confidence kept or dropped together; 0 if all slides together reach it. If no threshold does, it is above 1 and
    no slide is answered: the target is never lowered.

    A temperature judged on the slides that chose it flatters itself. `ece_after` and `log_loss_after` are therefore
    cross-fitted: the groups are dealt into ten folds, and each fold's slides are scaled by the T of the other folds.
    They are None with fewer than two groups. The order of the slides changes nothing.

    Args:
        truth: (slides,) class positions.
        probabilities: (slides, classes) out-of-fold predictions: by networks that never saw the slide.
        target_precision: in (0, 1].
        groups: (slides,) patients, if several slides can share one.

    Raises:
        ParameterError: see `fit_temperature`; or groups that do not line up.
    """
    labels, rows = _checked(truth, probabilities)
    order, units = canonical_order(labels, [rows], groups)
    labels, rows = labels[order], rows[order]
    temperature = fit_temperature(labels, rows)
    scaled = apply_temperature(rows, temperature)
    threshold = _threshold(scaled.max(axis=1), scaled.argmax(axis=1) == labels, target_precision)
    answered = scaled.max(axis=1) >= threshold
    crossed = cross_fitted(labels, rows, units)
    return Calibration(
        temperature=temperature,
        threshold=threshold,
        target_precision=target_precision,
        slides=len(labels),
        coverage=float(answered.mean()),
        precision=float((scaled.argmax(axis=1) == labels)[answered].mean()) if answered.any() else None,
        ece_before=_ece(labels, rows),
        ece_after=None if crossed is None else _ece(labels, crossed),
        log_loss_before=float(log_losses(labels, rows).mean()),
        log_loss_after=None if crossed is None else float(log_losses(labels, crossed).mean()),
    )


def _threshold(confidence: NDArray[np.float64], right: NDArray[np.bool_], target: float) -> float:
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    precision = right[order].cumsum() / np.arange(1, len(order) + 1)
    last_of_equals = np.r_[ranked[1:] != ranked[:-1], True]
    reached = np.flatnonzero(last_of_equals & (precision >= target))
    if not len(reached):
        return ABSTAIN_ALWAYS
    return 0.0 if reached[-1] == len(order) - 1 else float(ranked[reached[-1]])


def cross_fitted(
    labels: NDArray[np.int64], rows: NDArray[np.float64], units: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Returns the probabilities scaled by temperatures that other groups' slides chose; None with fewer than two groups.

    Args:
        labels: (slides,) class positions.
        rows: (slides, classes) probabilities.
        units: (slides,) number of each slide's group, from 0.
    """
    if units.max() == 0:
        return None
    fold = units % FOLDS
    scaled = np.empty_like(rows)
    for one in np.unique(fold):
        held = fold == one
        scaled[held] = apply_temperature(rows[held], fit_temperature(labels[~held], rows[~held]))
    return scaled


def _ece(labels: NDArray[np.int64], rows: NDArray[np.float64]) -> float:
    return float(abs(calibration_gaps(labels, rows).mean(axis=0)).sum())


def _checked(
    truth: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    if not len(truth):
        raise ParameterError("there are no out-of-fold slides to calibrate on; a model without them has no calibration")
    classes = np.asarray(probabilities).shape[-1]
    return checked([str(one) for one in truth], probabilities, [str(one) for one in range(classes)])
