"""Patch probabilities become slide probabilities; evaluation and the served model both call this module.

A slide's result depends on its own patches only and is bit for bit the same whether the slide comes alone or among
thousands: sums are exactly rounded (`math.fsum`), so neither the neighbours nor the order of the patches can show.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from doctogres.errors import DoctogresError, ParameterError

Method = Literal["mean", "area_mean", "log_mean", "majority", "max_confidence", "top_k_mean", "log_sum_exp"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)
ATTENTION: Final = "attention"  # a trained head on the patches' features, so none of the methods above

TOP_SHARE: Final = 0.25  # of the patches, per class, that top_k_mean averages; rounded up
SHARPNESS: Final = 5.0  # log_sum_exp's r: towards 0 it is the mean, towards infinity the maximum
# log_mean's floor: one patch that says "never" may weigh heavily but must not veto a class alone.
LOG_FLOOR: Final = 1e-7
# Half-precision softmax rows miss one by up to a few thousandths; logits miss it by far more.
ROW_SUM_TOLERANCE: Final = 1e-2


class NoPatchesError(DoctogresError, ValueError):
    """A slide has no patch, so there is nothing to aggregate."""

    code: ClassVar[str] = "no_patches"


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
        method: one of METHODS:

            - `mean`, the arithmetic mean; `area_mean`, the mean weighted by region area.
            - `log_mean`, the normalised geometric mean (the product-of-experts rule), probabilities floored at 1e-7.
            - `majority`: every patch votes for its top class (the first among equals), and one vote more is shared out
              by the mean probabilities: a tie falls to the class with the higher mean, and no class that some patch
              gave a chance gets zero. A single patch is therefore not its own answer, though its top class is.
            - `max_confidence`, the patch with the highest top probability; the mean over exactly tied ones.
            - `top_k_mean`, per class the mean of its highest quarter of the patches (rounded up), normalised.
            - `log_sum_exp`, per class ln(mean(exp(5 p))) / 5, a soft maximum, normalised (Pinheiro and Collobert,
              From Image-level to Pixel-level Labeling with Convolutional Networks, CVPR 2015; they pool raw scores).

    Raises:
        NoPatchesError: there is no patch (also a ValueError).
        ParameterError: the method is unknown or `attention`, which needs the patches' features; or the arrays are not
            probabilities and matching weights.
    """
    if method == ATTENTION:
        raise ParameterError(
            "attention pools the patches' features, not their probabilities: use the slide's answer from the model's "
            f"attention head, or choose one of {', '.join(METHODS)}"
        )
    if method not in METHODS:
        raise ParameterError(f"aggregation {method!r} is unknown; choose one of {', '.join(METHODS)}")
    rows = np.ascontiguousarray(probabilities, dtype=np.float64)  # (patches, classes)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ParameterError(f"patch probabilities must be (patches, classes), got shape {rows.shape}")
    if len(rows) == 0:
        raise NoPatchesError("the slide has no patches to aggregate; check its mask and the smallest region kept")
    if not np.isfinite(rows).all() or (rows < 0).any() or (abs(rows.sum(axis=1) - 1) > ROW_SUM_TOLERANCE).any():
        raise ParameterError("patch probabilities must be finite, non-negative and sum to one in every row: not logits")

    if method == "log_mean":
        logs = _column_sums(np.log(np.maximum(rows, LOG_FLOOR))) / len(rows)
        pooled = np.exp(logs - logs.max())
    elif method == "area_mean":
        pooled = _column_sums(rows * _checked_weights(weights, len(rows))[:, None])
    elif method == "majority":
        votes = np.bincount(rows.argmax(axis=1), minlength=rows.shape[1])
        pooled = votes + _column_sums(rows) / len(rows)
    elif method == "max_confidence":
        confidence = rows.max(axis=1)
        pooled = _column_sums(rows[confidence == confidence.max()])
    elif method == "top_k_mean":
        highest = math.ceil(TOP_SHARE * len(rows))
        pooled = _column_sums(np.sort(rows, axis=0)[-highest:])
    elif method == "log_sum_exp":
        pooled = np.log(_column_sums(np.exp(SHARPNESS * rows)) / len(rows)) / SHARPNESS
    else:
        pooled = _column_sums(rows)
    return np.asarray(pooled / math.fsum(pooled), dtype=np.float64)


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


def _column_sums(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([math.fsum(column) for column in rows.T.tolist()])


def _checked_weights(weights: NDArray[Any] | None, patches: int) -> NDArray[np.float64]:
    if weights is None:
        raise ParameterError("area_mean needs the patches' areas; give them or choose mean")
    checked = np.asarray(weights, dtype=np.float64)
    if checked.shape != (patches,):
        raise ParameterError(f"area_mean needs one area per patch: {patches} patches, areas of shape {checked.shape}")
    if not np.isfinite(checked).all() or (checked < 0).any() or not checked.any():
        raise ParameterError("areas must be finite and non-negative, and one of them above zero")
    # Shares instead of pixels: the largest is one, so no product can overflow or vanish.
    return np.asarray(checked / checked.max(), dtype=np.float64)
