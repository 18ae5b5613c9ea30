"""Pools patch probabilities into slide probabilities; used by evaluation and by the served model.

A slide's result depends only on its own patches and is bit-identical whether the slide is classified alone or among
thousands: sums are exactly rounded (`math.fsum`), so the order of the patches does not matter.

Every function in POOLING takes the patch probabilities (patches, classes) and the region areas in pixels (patches,),
or None, and returns a non-negative score per class, (classes,), which `aggregate` divides by the sum. In the formulas p
is a patch's probability of the class, and means and products are over the slide's n patches.
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
SHARPNESS: Final = 5.0  # log_sum_exp's r: near 0 it gives the mean, towards infinity the maximum
# log_mean's floor: a single patch with probability zero counts heavily but must not veto a class.
LOG_FLOOR: Final = 1e-7
# Rows of a half-precision softmax sum to one within a few thousandths; logits are much further off.
ROW_SUM_TOLERANCE: Final = 1e-2


class NoPatchesError(DoctogresError, ValueError):
    """A slide has no patches, so there is nothing to aggregate."""

    code: ClassVar[str] = "no_patches"


def _column_sums(rows: Rows) -> Scores:
    return np.array([math.fsum(column) for column in rows.T.tolist()])


def mean(rows: Rows, areas: NDArray[Any] | None) -> Scores:
    """The arithmetic mean of p: the sum rule (Kittler et al., On combining classifiers, PAMI 1998)."""
    return _column_sums(rows)


def area_mean(rows: Rows, areas: NDArray[Any] | None) -> Scores:
    """The mean weighted by region area, sum(area p) / sum(area): each lesion pixel counts the same.

    Raises:
        ParameterError: the areas are missing, not one per patch, not finite or negative, or all are zero.
    """
    if areas is None:
        raise ParameterError("area_mean needs the patch areas; give them or choose mean")
    checked = np.asarray(areas, dtype=np.float64)
    if checked.shape != (len(rows),):
        raise ParameterError(f"area_mean needs one area per patch: {len(rows)} patches, areas of shape {checked.shape}")
    if not np.isfinite(checked).all() or (checked < 0).any() or not checked.any():
        raise ParameterError("areas must be finite and non-negative, and at least one above zero")
    # Shares instead of pixels: the largest is one, so no product can overflow or underflow.
    return _column_sums(rows * (checked / checked.max())[:, None])


def log_mean(rows: Rows, areas: NDArray[Any] | None) -> Scores:
    """The geometric mean, product(p)^(1/n), p floored at 1e-7: the product rule (Kittler et al., PAMI 1998)."""
    logs = _column_sums(np.log(np.maximum(rows, LOG_FLOOR))) / len(rows)
    return np.asarray(np.exp(logs - logs.max()))


def majority(rows: Rows, areas: NDArray[Any] | None) -> Scores:
    """The patches' votes for their top class (ties: the first class), plus mean(p): majority vote (Kittler et al., PAMI 1998).

    Adding the mean breaks ties in favour of the class with the higher mean and keeps every class above zero that any
    patch considers possible. A slide with one patch therefore gets that patch's class, but not its probabilities.
    """
    votes = np.bincount(rows.argmax(axis=1), minlength=rows.shape[1])
    return np.asarray(votes + _column_sums(rows) / len(rows))


def max_confidence(rows: Rows, areas: NDArray[Any] | None) -> Scores:
    """The p of the most confident patch, or mean(p) over the patches that tie exactly.

    Kittler's max rule takes the maximum per class instead, so that classes can get their scores from different patches.
    """
    confidence = rows.max(axis=1)
    return _column_sums(rows[confidence == confidence.max()])


def top_k_mean(rows: Rows, areas: NDArray[Any] | None) -> Scores:
    """Per class, the mean of the k highest p, k = ceil(n / 4).

    Durand et al., WELDON: Weakly Supervised Learning of Deep Convolutional Neural Networks, CVPR 2016, without the
    lowest-scoring instances it also uses.
    """
    highest = math.ceil(TOP_SHARE * len(rows))
    return _column_sums(np.sort(rows, axis=0)[-highest:])


def log_sum_exp(rows: Rows, areas: NDArray[Any] | None) -> Scores:
    """A soft maximum, ln(mean(exp(5 p))) / 5.

    Pinheiro and Collobert, From Image-level to Pixel-level Labeling with Convolutional Networks, CVPR 2015, where it is
    applied to raw scores.
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
        weights: (patches,) non-negative areas in pixels; required by `area_mean`, ignored by the other methods.
        method: a name in POOLING.

    Raises:
        NoPatchesError: there are no patches (also a ValueError).
        ParameterError: the method is unknown, or `attention`, which needs patch features; or the arrays are not
            probabilities with matching weights.
    """
    if method == ATTENTION:
        raise ParameterError(
            "attention pools patch features, not their probabilities: use the slide prediction of the model's attention "
            f"head, or choose one of {', '.join(POOLING)}"
        )
    if method not in POOLING:
        raise ParameterError(f"aggregation {method!r} is unknown; choose one of {', '.join(POOLING)}")
    rows = np.ascontiguousarray(probabilities, dtype=np.float64)  # (patches, classes)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ParameterError(f"patch probabilities must be (patches, classes), got shape {rows.shape}")
    if len(rows) == 0:
        raise NoPatchesError("the slide has no patches to aggregate; check its mask and min_area")
    if not np.isfinite(rows).all() or (rows < 0).any() or (abs(rows.sum(axis=1) - 1) > ROW_SUM_TOLERANCE).any():
        raise ParameterError(
            "patch probabilities must be finite and non-negative, and every row must sum to one (not logits)"
        )
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
        areas: (patches,) in pixels, or None if the method needs none.
        method: see `aggregate`.

    Raises:
        ParameterError: the arguments differ in length, or `aggregate` refuses a slide (the message names it).
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    areas = None if areas is None else np.asarray(areas)  # a table's column has its own index
    if rows.ndim != 2:
        raise ParameterError(f"patch probabilities must be (patches, classes), got shape {rows.shape}")
    if len(slide_ids) != len(rows) or (areas is not None and len(areas) != len(slide_ids)):
        lengths = f"{len(slide_ids)} slide ids, {len(rows)} probability rows"
        raise ParameterError(f"lengths differ: {lengths}, {'no' if areas is None else len(areas)} areas")
    positions: dict[str, list[int]] = {}
    for position, slide_id in enumerate(slide_ids):
        positions.setdefault(slide_id, []).append(position)
    pooled = np.empty((len(positions), rows.shape[1]))  # (slides, classes)
    for slide, (slide_id, patches) in enumerate(positions.items()):
        weights = None if areas is None else areas[patches]
        try:
            pooled[slide] = aggregate(rows[patches], weights=weights, method=method)
        except ParameterError as error:
            raise ParameterError(f"slide {slide_id}: {error}") from error
    return list(positions), pooled
