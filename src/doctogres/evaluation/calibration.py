"""Fits the temperature of slide probabilities, and the confidence below which the model abstains."""

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

FOLDS: Final = 10  # of groups, to evaluate a temperature on slides that it was not fitted on


def fit_temperature(truth: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Returns the T in [0.05, 20] for which softmax(ln p / T) has the lowest log loss; above 1 if over-confident.

    Guo et al., On Calibration of Modern Neural Networks, ICML 2017. Probabilities are floored at 1e-15 times the row's
    highest. A few slides, all classified correctly, would push every confidence to one. As in Platt scaling (Advances in
    Large Margin Classifiers, 1999), the target for the true class of n slides is therefore (n + 1) / (n + 2), and the
    other classes share the rest. The log loss is convex in 1/T, so its slope has at most one zero; without one, T is the
    bound towards which the loss falls. If the slope is zero everywhere (all rows uniform), T is 1.

    Args:
        truth: (slides,) class positions.
        probabilities: (slides, classes), rows sum to one.

    Raises:
        ParameterError: no slides, a class position out of range, or rows that are not probabilities.
    """
    from scipy.optimize import brentq  # takes nearly two seconds to import, and serving does not need it

    labels, rows = _checked(truth, probabilities)
    logits = relative_logits(rows)
    certain = (len(labels) + 1) / (len(labels) + 2)
    targets = np.full(rows.shape, (1 - certain) / max(1, rows.shape[1] - 1))
    targets[np.arange(len(labels)), labels] = certain
    target_logits = (targets * logits).sum(axis=1)

    def slope(sharpness: float) -> float:
        """The derivative of the mean log loss with respect to 1/T; it never decreases."""
        odds = np.exp(sharpness * logits)
        return float(((odds * logits).sum(axis=1) / odds.sum(axis=1) - target_logits).mean())

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
    """Returns the temperature, and the threshold at which the share of correct predictions reaches `target_precision`.

    The threshold is the lowest calibrated confidence for which the slides at or above it reach the target; slides with
    equal confidence are kept or dropped together. It is 0 if all slides together reach the target. If no threshold does,
    it is above 1 and the model always abstains: the target is never lowered.

    A temperature evaluated on the slides it was fitted on looks better than it is. `ece_after` and `log_loss_after` are
    therefore cross-fitted: the groups are split into ten folds, and each fold's slides are scaled by the T fitted on the
    other folds. They are None with fewer than two groups. The order of the slides does not matter.

    Args:
        truth: (slides,) class positions.
        probabilities: (slides, classes) out-of-fold predictions, by networks that were not trained on the slide.
        target_precision: in (0, 1].
        groups: (slides,) patients, if one can have several slides.

    Raises:
        ParameterError: see `fit_temperature`; or the number of groups does not match.
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


def _threshold(confidence: NDArray[np.float64], correct: NDArray[np.bool_], target: float) -> float:
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    precision = correct[order].cumsum() / np.arange(1, len(order) + 1)
    last_of_equals = np.r_[ranked[1:] != ranked[:-1], True]
    reached = np.flatnonzero(last_of_equals & (precision >= target))
    if not len(reached):
        return ABSTAIN_ALWAYS
    return 0.0 if reached[-1] == len(order) - 1 else float(ranked[reached[-1]])


def cross_fitted(
    labels: NDArray[np.int64], rows: NDArray[np.float64], units: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Returns the probabilities scaled by temperatures fitted on other groups; None with fewer than two groups.

    Args:
        labels: (slides,) class positions.
        rows: (slides, classes) probabilities.
        units: (slides,) index of each slide's group, from 0.
    """
    if units.max() == 0:
        return None
    fold = units % FOLDS
    scaled = np.empty_like(rows)
    for number in np.unique(fold):
        held_out = fold == number
        scaled[held_out] = apply_temperature(rows[held_out], fit_temperature(labels[~held_out], rows[~held_out]))
    return scaled


def _ece(labels: NDArray[np.int64], rows: NDArray[np.float64]) -> float:
    return float(abs(calibration_gaps(labels, rows).mean(axis=0)).sum())


def _checked(
    truth: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    if not len(truth):
        raise ParameterError(
            "there are no out-of-fold predictions to calibrate on; a model without them cannot be calibrated"
        )
    classes = np.asarray(probabilities).shape[-1]
    return checked([str(position) for position in truth], probabilities, [str(index) for index in range(classes)])
