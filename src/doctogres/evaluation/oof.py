"""How a model's networks did on the slides each of them never saw: scores, calibration, and the ways to an answer compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.evaluation.calibration import calibrate, cross_fitted
from doctogres.evaluation.comparison import compare
from doctogres.evaluation.metrics import class_indices, slide_metrics
from doctogres.model.temperature import Calibration

Probabilities = npt.NDArray[np.float64]  # (slides, classes)

NOTE: Final = (
    "Every slide was answered by a network that was not trained on it, though the kept epoch was chosen on its fold; "
    "the served model may be the mean of several such networks."
)


@dataclass(frozen=True)
class OutOfFold:
    """Answers for slides by networks that never saw them, in one or several rounds over the same slides."""

    slides: pd.DataFrame  # slide_id, label, group; a row per slide
    rounds: dict[str, list[Probabilities]]  # way -> (slides, classes) of every round


@dataclass(frozen=True)
class Assessment:
    """What follows for the model, and what people are shown."""

    calibration: Calibration
    evidence: dict[str, Any]
    ways: (
        pd.DataFrame
    )  # a row per way: name, chosen, macro_f1, low, high, against, difference, difference_low, difference_high


def gather(
    slides: pd.DataFrame, answered: Sequence[Sequence[tuple[list[str], Mapping[str, Probabilities]]]]
) -> OutOfFold:
    """Puts the folds' answers together.

    Args:
        slides: slide_id, label, group of the training part.
        answered: rounds of folds of (slide ids, way -> (slides, classes)); all rounds must answer the same slides.
    """
    orders = [[slide for ids, _ in folds for slide in ids] for folds in answered]
    ordered = slides.set_index("slide_id").loc[sorted(orders[0])].reset_index()
    rounds: dict[str, list[Probabilities]] = {}
    for order, folds in zip(orders, answered, strict=True):
        for way in folds[0][1]:
            rows = np.concatenate([found[way] for _, found in folds])
            rounds.setdefault(way, []).append(rows[np.argsort(order)])
    return OutOfFold(ordered, rounds)


def assess(
    found: OutOfFold,
    classes: Sequence[str],
    *,
    chosen: str,
    against: Mapping[str, str],
    target_precision: float,
    resamples: int,
    seed: int,
) -> Assessment:
    """Calibrates the chosen way and compares all of them on the same slides.

    The scores in the evidence are cross-fitted: each slide's temperature comes from the other groups' slides.

    Args:
        found: the out-of-fold answers.
        classes: the class order.
        chosen: the way that the model is set to.
        against: way -> the way that its paired difference is taken against.
        target_precision: see `calibrate`.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
    """
    truth, groups = found.slides["label"].tolist(), found.slides["group"].tolist()
    own = found.rounds[chosen]
    calibration = calibrate(
        np.tile(class_indices(truth, classes), len(own)),
        np.concatenate(own),
        groups=groups * len(own),
        target_precision=target_precision,
    ).model_copy(update={"slides": len(truth)})  # however often each of them was answered
    options: dict[str, Any] = {"groups": groups, "resamples": resamples, "seed": seed}
    comparison = compare(truth, found.rounds, classes, against=against, **options)
    crossed = cross_fitted(class_indices(truth, classes), own[0], np.unique(groups, return_inverse=True)[1])
    metrics = slide_metrics(truth, own[0] if crossed is None else crossed, classes, **options)
    metrics["macro_f1"] = comparison.values[chosen]  # over all rounds
    ways = [
        {
            "name": way,
            "chosen": way == chosen,
            "macro_f1": comparison.values[way].to_dict(),
            "against": against.get(way),
            "difference": comparison.differences[way].to_dict() if way in against else None,
        }
        for way in found.rounds
    ]
    evidence = {
        "slides": len(found.slides),
        "repeats": len(own),
        "metrics": {name: estimate.to_dict() for name, estimate in metrics.items()},
        "aggregations": ways,
        "calibration": calibration.model_dump(),
        "note": NOTE,
    }
    return Assessment(calibration, evidence, _table(ways))


def _table(ways: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    rows = []
    for way in ways:
        own, difference = way["macro_f1"], way["difference"] or {}
        rows.append({
            "name": way["name"], "chosen": way["chosen"],
            "macro_f1": own["value"], "low": own["low"], "high": own["high"],
            "against": way["against"], "difference": difference.get("value"),
            "difference_low": difference.get("low"),
            "difference_high": difference.get("high"),
        })  # fmt: skip
    return pd.DataFrame(rows)
