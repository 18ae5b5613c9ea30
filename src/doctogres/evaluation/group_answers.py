"""Chooses on out-of-fold predictions how a model answers for a group (a patient), and scores such answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np
from numpy.typing import NDArray

from doctogres.evaluation.calibration import calibrate, cross_fitted
from doctogres.evaluation.metrics import log_losses
from doctogres.model.group_answer import GroupRule, Pooling, pool
from doctogres.model.temperature import ABSTAIN_ALWAYS, Calibration

NONE: Final = "none"
AUTO: Final = "auto"
ALONE: Final = "each slide alone"
METHODS: Final[tuple[Pooling, ...]] = get_args(Pooling)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GroupChoice:
    """The rule for groups, None for no answer, and why."""

    rule: GroupRule | None
    evidence: dict[str, Any]  # method, reason, slides, groups, log_loss


def choose_rule(
    truth: NDArray[np.int64],
    probabilities: Floats,
    groups: Sequence[str],
    *,
    setting: str,
    target_precision: float,
    repeats: int = 1,
) -> GroupChoice:
    """The rule that the setting asks for; `auto` takes the lowest log loss over the slides of groups with several slides.

    It takes a rule only if this is lower than that of the slides' own answers beyond chance: by more than two standard errors
    of the paired difference, over groups.

    Every slide's own label is compared with the answer of its group, and with its own answer: where the slides of a patient
    have different labels, one answer for all of them loses. All log losses have a temperature that is fitted on other groups.
    The rule's own temperature and threshold are fitted on the groups whose slides have one label.

    Args:
        truth: (slides,) class positions, all slides of one repeat after those of another.
        probabilities: (slides, classes) out of fold, calibrated for slides.
        groups: (slides,).
        setting: `AnswerSettings.group_answer`.
        target_precision: see `calibrate`.
        repeats: how often each slide occurs; slides of different repeats are not put together.
    """
    group = np.unique(np.asarray(groups, str), return_inverse=True)[1]
    units = group + (group.max() + 1) * np.repeat(np.arange(repeats), len(group) // repeats)
    several = (np.bincount(units) > 1)[units]
    evidence = {"slides": int(several.sum()) // repeats, "groups": len(np.unique(group[several])), "log_loss": {}}
    if setting == NONE:
        return GroupChoice(None, {"method": NONE, "reason": "group_answer=none"} | evidence)
    if setting == AUTO:
        if not several.any():
            return GroupChoice(None, {"method": NONE, "reason": "no group has several slides"} | evidence)
        losses = {way: _losses(truth, rows, units) for way, rows in _ways(probabilities, units).items()}
        evidence["log_loss"] = {way: float(values[several].mean()) for way, values in losses.items()}
        best = min(METHODS, key=lambda way: losses[way][several].mean())
        gain, error = _gain((losses[ALONE] - losses[best])[several], group[several])
        if gain <= 2 * error:
            reason = (
                "out of fold, the log loss of the answer for a group is not lower beyond chance than that of every slide's "
                f"own answer: lower by {gain:.3f} with {best}, standard error {error:.3f}"
            )
            return GroupChoice(None, {"method": NONE, "reason": reason} | evidence)
        setting, reason = best, f"out of fold, its log loss is lower by {gain:.3f}, standard error {error:.3f}"
    else:
        reason = f"group_answer={setting}"
    method: Pooling = "mean" if setting == "mean" else "log_probabilities"
    calibration = _calibration(truth, pooled(probabilities, units, method), units, target_precision)
    return GroupChoice(
        GroupRule(method=method, calibration=calibration), {"method": method, "reason": reason} | evidence
    )


def pooled(probabilities: Floats, units: NDArray[np.int64], method: Pooling) -> Floats:
    """Every group's probabilities, (groups, classes)."""
    return np.stack([pool(probabilities[units == unit], method) for unit in range(units.max() + 1)])


def common_labels(truth: NDArray[np.int64], units: NDArray[np.int64]) -> NDArray[np.int64]:
    """The label of every group, (groups,); -1 where its slides have several."""
    lowest, highest = np.full(units.max() + 1, truth.max()), np.full(units.max() + 1, -1)
    np.minimum.at(lowest, units, truth)
    np.maximum.at(highest, units, truth)
    return np.where(lowest == highest, lowest, -1)


def _ways(probabilities: Floats, units: NDArray[np.int64]) -> dict[str, Floats]:
    """The answer for every slide, (slides, classes): its own, and that of its group by each method."""
    return {ALONE: probabilities} | {method: pooled(probabilities, units, method)[units] for method in METHODS}


def _losses(truth: NDArray[np.int64], rows: Floats, units: NDArray[np.int64]) -> Floats:
    """Log loss of every slide, (slides,)."""
    crossed = cross_fitted(truth, rows, units)
    return np.asarray(log_losses(truth, rows if crossed is None else crossed))


def _gain(differences: Floats, groups: NDArray[np.int64]) -> tuple[float, float]:
    """The mean difference per slide, and its standard error, infinite with one group.

    The mean is a ratio of two sums over groups (Cochran, Sampling techniques, 1977, section 6.4).
    """
    _, position, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    mean, count = float(differences.mean()), len(sizes)
    if count < 2:
        return mean, float("inf")
    rest = np.bincount(position, differences) - mean * sizes
    return mean, float(np.sqrt(count / (count - 1) * (rest**2).sum()) / len(differences))


def _calibration(truth: NDArray[np.int64], rows: Floats, units: NDArray[np.int64], target: float) -> Calibration:
    labels = common_labels(truth, units)
    known = labels >= 0
    if not known.any():  # nothing says when such an answer can be trusted
        return Calibration.none(target).model_copy(update={"threshold": ABSTAIN_ALWAYS})
    return calibrate(labels[known], rows[known], target_precision=target)
