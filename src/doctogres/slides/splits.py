"""Hold-out and folds, grouped: no patient and no near-copy of a slide is ever on two sides."""

from collections.abc import Sequence
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from doctogres.errors import DoctogresError, ParameterError, listed

HOLDOUT: Final = "holdout"


class LeakageError(DoctogresError):
    """A group of slides that belong together is on two sides of a split."""

    code: ClassVar[str] = "leakage"


def assign_folds(
    labels: Sequence[str], groups: Sequence[str], *, holdout: float, folds: int, seed: int
) -> NDArray[np.str_]:
    """Sends each slide to the hold-out or to one of the folds of the training part, whole groups at a time.

    Groups go, large ones first, to the side that most lacks their labels (a greedy minimum of the chi-square distance
    to the wanted shares). Every class has at least one group in the training part; the hold-out is empty only when
    that leaves nothing for it. The order of the slides does not matter.

    Args:
        labels: class of each slide.
        groups: group of each slide.
        holdout: wanted share of the slides in the hold-out, in (0, 1).
        folds: number of folds; with fewer groups than folds some stay empty.
        seed: another seed, another split.

    Returns:
        `"holdout"` or `"fold0"` ... for each slide, (slides,).
    """
    if len(labels) != len(groups):
        raise ParameterError(f"{len(labels)} labels but {len(groups)} groups; give one of each per slide")
    if not 0 < holdout < 1 or folds < 2:
        raise ParameterError(f"holdout={holdout} must lie between 0 and 1 and folds={folds} be at least 2")
    if not len(labels):
        return np.empty(0, dtype=np.str_)
    counts, group_of = _counts(labels, groups)
    rng = np.random.default_rng(seed)
    held = _share_out(counts, np.array([holdout, 1 - holdout]), rng) == 0
    held = _with_every_class_trained(counts, held)
    side = np.full(len(counts), HOLDOUT, dtype="U16")
    side[~held] = _draw_folds(counts[~held], folds, rng)
    return np.asarray(side[group_of], dtype=np.str_)


def draw_folds(labels: Sequence[str], groups: Sequence[str], *, folds: int, seed: int) -> NDArray[np.str_]:
    """Sends each slide to one of the folds, whole groups at a time, as `assign_folds` does with the training part.

    Returns:
        `"fold0"` ... for each slide, (slides,).
    """
    counts, group_of = _counts(labels, groups)
    return np.asarray(_draw_folds(counts, folds, np.random.default_rng(seed))[group_of], dtype=np.str_)


def _counts(labels: Sequence[str], groups: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Slides of each class in each group, (groups, classes), and the position of each slide's group."""
    _, group_of = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    _, label_of = np.unique(np.asarray(labels, dtype=np.str_), return_inverse=True)
    counts = np.zeros((group_of.max() + 1, label_of.max() + 1))
    np.add.at(counts, (group_of, label_of), 1)
    return counts, group_of


def _draw_folds(counts: NDArray[np.float64], folds: int, rng: np.random.Generator) -> NDArray[np.str_]:
    """The fold of each group, (groups,)."""
    return np.array([f"fold{fold}" for fold in _share_out(counts, np.full(folds, 1 / folds), rng)], dtype="U16")


def check_no_leakage(folds: Sequence[str] | NDArray[np.str_], groups: Sequence[str]) -> None:
    """Refuses a split in which a group is on two sides.

    Raises:
        LeakageError: names the groups and their sides.
    """
    sides: dict[str, set[str]] = {}
    for fold, group in zip(folds, groups, strict=True):
        sides.setdefault(str(group), set()).add(str(fold))
    split = {group: sorted(where) for group, where in sorted(sides.items()) if len(where) > 1}
    if split:
        shown = listed([f"{group} in {' and '.join(where)}" for group, where in split.items()], separator="; ")
        raise LeakageError(f"{len(split)} groups are on two sides of the split ({shown}); assign folds by group")


def _share_out(counts: NDArray[np.float64], shares: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.intp]:
    """The side of each group, so that every side has about its share of every class and of all slides."""
    counts = np.column_stack([counts, counts.sum(axis=1)])  # (groups, classes + 1)
    wanted = np.outer(shares, counts.sum(axis=0))  # (sides, classes + 1)
    wanted = np.where(wanted > 0, wanted, np.inf)
    have = np.zeros_like(wanted)
    sides = np.zeros(len(counts), dtype=np.intp)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order, -1], kind="stable")]
    preference = rng.permutation(len(shares))
    for group in order:
        added = counts[group]
        need = np.where(np.isinf(wanted), 0, have - wanted)
        cost = ((2 * need * added + added**2) / wanted).sum(axis=1)
        side = preference[np.argmin(cost[preference].round(9))]
        sides[group] = side
        have[side] += added
    return sides


def _with_every_class_trained(counts: NDArray[np.float64], held: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Takes groups out of the hold-out until every class is trained, and puts one in if that costs no class."""
    held = held.copy()
    for label in range(counts.shape[1]):
        of_label = counts[:, label] > 0
        if not (of_label & ~held).any():
            held[np.flatnonzero(of_label)[np.argmax(counts[of_label, label])]] = False
    if not held.any():
        trained = counts.sum(axis=0)
        spare = np.flatnonzero((trained - counts > 0).all(axis=1))  # groups whose classes all have another group
        if len(spare):
            held[spare[np.argmin(counts[spare].sum(axis=1))]] = True
    return held
