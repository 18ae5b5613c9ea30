"""Out-of-fold evaluation of a model's networks: scores, calibration, and a comparison of aggregations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.evaluation.calibration import calibrate, cross_fitted
from doctogres.evaluation.comparison import compare
from doctogres.evaluation.conformal import label_sets
from doctogres.evaluation.group_answers import choose_rule
from doctogres.evaluation.metrics import class_indices, slide_metrics
from doctogres.model.conformal import LabelSets, NoveltyLimit
from doctogres.model.group_answer import GroupRule
from doctogres.model.temperature import Calibration, apply_temperature

Probabilities = npt.NDArray[np.float64]  # (slides, classes)

# What the out-of-fold predictions are, by recipe.
NOTES: Final = {
    "finetune": "Every slide was classified by a network that was not trained on it, although the epoch was selected on its "
    "fold; the served model may average several such networks.",
    "probe": "Every slide was classified by a head that was not fitted to it; the served model's head was fitted to all of them.",
}


@dataclass(frozen=True)
class OutOfFold:
    """Predictions for slides by networks that were not trained on them, in one or more repeats over the same slides."""

    slides: pd.DataFrame  # slide_id, label, group; one row per slide
    repeats: dict[str, list[Probabilities]]  # aggregation -> (slides, classes) of every repeat


@dataclass(frozen=True)
class Assessment:
    """The calibration and the conformal limits for the model, and the evidence shown in its report."""

    calibration: Calibration
    evidence: dict[str, Any]
    # A row per aggregation: name, chosen, macro_f1, low, high, against, difference, difference_low, difference_high.
    aggregations: pd.DataFrame
    labels: LabelSets | None = None
    novelty: NoveltyLimit | None = None
    group: GroupRule | None = None


def gather(
    slides: pd.DataFrame, answered: Sequence[Sequence[tuple[list[str], Mapping[str, Probabilities]]]]
) -> OutOfFold:
    """Joins the predictions of all folds.

    Args:
        slides: slide_id, label, group of the training slides.
        answered: repeats of folds of (slide ids, aggregation -> (slides, classes)); all repeats must cover the same slides.
    """
    orders = [[slide for ids, _ in folds for slide in ids] for folds in answered]
    ordered = slides.set_index("slide_id").loc[sorted(orders[0])].reset_index()
    repeats: dict[str, list[Probabilities]] = {}
    for order, folds in zip(orders, answered, strict=True):
        for name in folds[0][1]:
            rows = np.concatenate([probabilities[name] for _, probabilities in folds])
            repeats.setdefault(name, []).append(rows[np.argsort(order)])
    return OutOfFold(ordered, repeats)


def assess(
    predictions: OutOfFold,
    classes: Sequence[str],
    *,
    chosen: str,
    against: Mapping[str, str],
    target_precision: float,
    labels_coverage: float,
    group_answer: str,
    recipe: str,
    resamples: int,
    seed: int,
) -> Assessment:
    """Calibrates the chosen aggregation and compares all of them on the same slides.

    The scores in the evidence are cross-fitted: each slide's temperature was fitted on slides of other groups.

    Args:
        predictions: the out-of-fold predictions.
        classes: the class order.
        chosen: the aggregation that the model uses.
        against: aggregation -> the one that it is compared with.
        target_precision: see `calibrate`.
        labels_coverage: share of slides whose labels are to hold the truth.
        group_answer: see `choose_rule`.
        recipe: how the networks were trained, for the note.
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.
    """
    truth, groups = predictions.slides["label"].tolist(), predictions.slides["group"].tolist()
    repeats = predictions.repeats[chosen]
    calibration = calibrate(
        np.tile(class_indices(truth, classes), len(repeats)),
        np.concatenate(repeats),
        groups=groups * len(repeats),
        target_precision=target_precision,
    ).model_copy(update={"slides": len(truth)})  # not slides times repeats
    positions = np.tile(class_indices(truth, classes), len(repeats))
    calibrated = apply_temperature(np.concatenate(repeats), calibration.temperature)
    labels = label_sets(positions, calibrated, groups * len(repeats), target=labels_coverage)
    chosen_rule = choose_rule(
        positions,
        calibrated,
        groups * len(repeats),
        setting=group_answer,
        target_precision=target_precision,
        repeats=len(repeats),
    )
    options: dict[str, Any] = {"groups": groups, "resamples": resamples, "seed": seed}
    comparison = compare(truth, predictions.repeats, classes, against=against, **options)
    crossed = cross_fitted(class_indices(truth, classes), repeats[0], np.unique(groups, return_inverse=True)[1])
    metrics = slide_metrics(truth, repeats[0] if crossed is None else crossed, classes, **options)
    metrics["macro_f1"] = comparison.values[chosen]  # over all repeats
    aggregations = [
        {
            "name": name,
            "chosen": name == chosen,
            "macro_f1": comparison.values[name].to_dict(),
            "against": against.get(name),
            "difference": comparison.differences[name].to_dict() if name in against else None,
        }
        for name in predictions.repeats
    ]
    evidence = {
        "slides": len(predictions.slides),
        "repeats": len(repeats),
        "metrics": {name: estimate.to_dict() for name, estimate in metrics.items()},
        "aggregations": aggregations,
        "calibration": calibration.model_dump(),
        "group_answer": chosen_rule.evidence,
        "recipe": recipe,
        "note": NOTES[recipe],
    }
    labels = labels.model_copy(update={"slides": len(truth)})
    return Assessment(calibration, evidence, _table(aggregations), labels, group=chosen_rule.rule)


def _table(aggregations: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    rows = []
    for aggregation in aggregations:
        macro_f1, difference = aggregation["macro_f1"], aggregation["difference"] or {}
        rows.append({
            "name": aggregation["name"], "chosen": aggregation["chosen"],
            "macro_f1": macro_f1["value"], "low": macro_f1["low"], "high": macro_f1["high"],
            "against": aggregation["against"], "difference": difference.get("value"),
            "difference_low": difference.get("low"),
            "difference_high": difference.get("high"),
        })  # fmt: skip
    return pd.DataFrame(rows)
