"""Patch probabilities become slide probabilities; evaluation and the served model both call this module.

A slide's result depends on its own patches only and is bit for bit the same whether the slide comes alone or among
thousands: sums are exactly rounded (`math.fsum`), so neither the neighbours nor the order of the patches can show.

Every function of POOLING takes the patches' probabilities (patches, classes) and the regions' areas in pixels (patches,),
or None, and returns a non-negative score per class, (classes,), which `aggregate` divides by the sum. In the formulas p
is a patch's probability of the class, and the mean and the product go over the slide's n patches.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from doctogres.errors import DoctogresError, ParameterError
from doctogres.settings import AGGREGATIONS, ATTENTION

Rows = NDArray[np.float64]  # (patches, classes)
Scores = NDArray[np.float64]  # (classes,)

TOP_SHARE: Final = 0.25  # of the patches, per class, that top_k_mean averages; rounded up
SHARPNESS: Final = 5.0  # log_sum_exp's r: towards 0 it is the mean, towards infinity the maximum
# log_mean's floor: one patch that says "never" may weigh heavily but must not veto a class alone.
LOG_FLOOR: Final = 1e-7
# Half-precision softmax rows miss one by up to a few thousandths; logits miss it by far more.
ROW_SUM_TOLERANCE: Final = 1e-2


class NoPatchesError(DoctogresError, ValueError):
    """A slide has no patch, so there is nothing to aggregate."""

    code: ClassVar[str] = "no_patches"


def _column_sums(rows: Rows) -> Scores:
    return np.array([math.fsum(column) for column in rows.T.tolist()])


def mean(rows: Rows, areas: NDArray[Any] | None) -> Scores:
    """The arithmetic mean of p: the sum rule (Kittler et al., On combining classifiers, PAMI 1998)."""
    return _column_sums(rows)


def area_mean(rows: Rows, areas: NDArray[Any] | None) -> Scores:
    """The mean weighted by region area, sum(area p) / sum(area): each lesion pixel counts the same.

    Raises:
        ParameterError: there is not one finite, non-negative area per patch, or none is above zero.
    """
    if areas is None:
        raise ParameterError("area_mean needs the patches' areas; give them or choose mean")
    checked = np.asarray(areas, dtype=np.float64)
    if checked.shape != (len(rows),):
        raise ParameterError(f"area_mean needs one area per patch: {len(rows)} patches, areas of shape {checked.shape}")
    if not np.isfinite(checked).all() or (checked < 0).any() or not checked.any():
        raise ParameterError("areas must be finite and non-negative, and one of them above zero")
    # Shares instead of pixels: the largest is one, so no product can overflow or vanish.
    return _column_sums(rows * (checked / checked.max())[:, None])


def log_mean(rows: Rows, areas: NDArray[Any] | None) -> Scores:
    """The geometric mean, product(p)^(1/n), p floored at 1e-7: the product rule (Kittler et al., PAMI 1998)."""
    logs = _column_sums(np.log(np.maximum(rows, LOG_FLOOR))) / len(rows)
    return np.asarray(np.exp(logs - logs.max()))


def majority(rows: Rows, areas: NDArray[Any] | None) -> Scores:
    """The patches' votes for their top class (the first among equals), plus mean(p): the vote (Kittler et al., PAMI 1998).

    The one vote that the means share out lets a tie fall to the class with the higher mean, and no class that some patch
    gave a chance gets zero. A single patch is therefore not its own answer, though its top class is.
    """
    votes = np.bincount(rows.argmax(axis=1), minlength=rows.shape[1])
    return np.asarray(votes + _column_sums(rows) / len(rows))


def max_confidence(rows: Rows, areas: NDArray[Any] | None) -> Scores:
    """The p of the patch whose highest probability is the highest; the mean(p) of exactly tied ones.

    Kittler's max rule takes each class's maximum instead, so that two patches can speak for two classes.
    """
    confidence = rows.max(axis=1)
    return _column_sums(rows[confidence == confidence.max()])


def top_k_mean(rows: Rows, areas: NDArray[Any] | None) -> Scores:
    """Per class the mean of the highest k of p, k = ceil(n / 4).

    Durand et al., WELDON: Weakly Supervised Learning of Deep Convolutional Neural Networks, CVPR 2016, without its
    lowest instances.
    """
    highest = math.ceil(TOP_SHARE * len(rows))
    return _column_sums(np.sort(rows, axis=0)[-highest:])


def log_sum_exp(rows: Rows, areas: NDArray[Any] | None) -> Scores:
    """A soft maximum, ln(mean(exp(5 p))) / 5.

    Pinheiro and Collobert, From Image-level to Pixel-level Labeling with Convolutional Networks, CVPR 2015; they pool
    raw scores.
    """
    return np.asarray(np.log(_column_sums(np.exp(SHARPNESS * rows)) / len(rows)) / SHARPNESS)


POOLING: Final[dict[str, Callable[[Rows, NDArray[Any] | None], Scores]]] = {
    "mean": mean,
    "area_mean": area_mean,
    "log_mean": log_mean,
    "majority": majority,
    "max_confidence": max_confidence,
    "top_k_mean": top_k_mean,
    "log_sum_exp": log_sum_exp,
}
assert {*POOLING, ATTENTION} == set(AGGREGATIONS)


def aggregate(
    probabilities: NDArray[np.float64] | NDArray[np.float32],
    *,
    weights: NDArray[Any] | None = None,
    method: str = "mean",
) -> NDArray[np.float64]:
    """Returns one slide's class probabilities, (patches, classes) -> (classes,), summing to one.

    Args:
        probabilities: a row per patch, each summing to one.
        weights: (patches,) non-negative areas in pixels; `area_mean` needs them, the other methods ignore them.
        method: a name in POOLING.

    Raises:
        NoPatchesError: there is no patch (also a ValueError).
        ParameterError: the method is unknown or `attention`, which needs the patches' features; or the arrays are not
            probabilities and matching weights.
    """
    if method == ATTENTION:
        raise ParameterError(
            "attention pools the patches' features, not their probabilities: use the slide's answer from the model's "
            f"attention head, or choose one of {', '.join(POOLING)}"
        )
    if method not in POOLING:
        raise ParameterError(f"aggregation {method!r} is unknown; choose one of {', '.join(POOLING)}")
    rows = np.ascontiguousarray(probabilities, dtype=np.float64)  # (patches, classes)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ParameterError(f"patch probabilities must be (patches, classes), got shape {rows.shape}")
    if len(rows) == 0:
        raise NoPatchesError("the slide has no patches to aggregate; check its mask and the smallest region kept")
    if not np.isfinite(rows).all() or (rows < 0).any() or (abs(rows.sum(axis=1) - 1) > ROW_SUM_TOLERANCE).any():
        raise ParameterError("patch probabilities must be finite, non-negative and sum to one in every row: not logits")
    scores = POOLING[method](rows, weights)
    return np.asarray(scores / math.fsum(scores), dtype=np.float64)


def aggregate_slides(
    slide_ids: Sequence[str],
    probabilities: NDArray[np.float64] | NDArray[np.float32],
    areas: NDArray[Any] | None,
    *,
    method: str,
) -> tuple[list[str], NDArray[np.float64]]:
    """Returns the slides in the order of their first patch and their probabilities, (slides, classes).

    Args:
        slide_ids: the slide of each patch; a slide's patches need not be adjacent.
        probabilities: (patches, classes).
        areas: (patches,) in pixels, or None where the method needs none.
        method: see `aggregate`.

    Raises:
        ParameterError: the three differ in length, or `aggregate` refuses a slide (the message names it).
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    areas = None if areas is None else np.asarray(areas)  # a table's column comes with an index of its own
    if rows.ndim != 2:
        raise ParameterError(f"patch probabilities must be (patches, classes), got shape {rows.shape}")
    if len(slide_ids) != len(rows) or (areas is not None and len(areas) != len(slide_ids)):
        lengths = f"{len(slide_ids)} slide ids, {len(rows)} probability rows"
        raise ParameterError(f"patches do not line up: {lengths}, {'no' if areas is None else len(areas)} areas")
    positions: dict[str, list[int]] = {}
    for position, slide_id in enumerate(slide_ids):
        positions.setdefault(slide_id, []).append(position)
    pooled = np.empty((len(positions), rows.shape[1]))  # (slides, classes)
    for slide, (slide_id, mine) in enumerate(positions.items()):
        weights = None if areas is None else areas[mine]
        try:
            pooled[slide] = aggregate(rows[mine], weights=weights, method=method)
        except ParameterError as error:
            raise ParameterError(f"slide {slide_id}: {error}") from error
    return list(positions), pooled
