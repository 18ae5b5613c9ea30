"""Metrics of slide and patch predictions, each with a 95 % interval.

Every metric is computed from weighted slides: weights of one give the value, bootstrap weights (`bootstrap.py`) its
interval. The predicted class is the most probable one; ties go to the first in class order.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from doctogres.errors import ParameterError
from doctogres.evaluation.bootstrap import Estimate, bootstrap
from doctogres.evaluation.weighted import auroc, class_f1, confusion_cells, confusions, macro, ratio, unit_sums
from doctogres.model.aggregation import ROW_SUM_TOLERANCE
from doctogres.model.temperature import PROBABILITY_FLOOR

CALIBRATION_BINS: Final = 10
PER_CLASS: Final = ("f1", "recall", "precision")  # `<kind>/<class>`


def class_indices(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Returns each label's position in the class order; a ParameterError names unknown labels."""
    position = {name: index for index, name in enumerate(classes)}
    unknown = sorted({str(label) for label in labels} - position.keys())
    if unknown:
        raise ParameterError(
            f"labels {unknown} are not among the classes {list(classes)}; use labels that the model knows"
        )
    return np.array([position[str(label)] for label in labels], dtype=np.int64)


def macro_f1(truth: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> float:
    """Returns the mean F1 over the classes PRESENT in the truth; NaN without slides.

    A class without slides is left out, as in scikit-learn's `f1_score(average="macro", labels=present)`; its default
    counts a class that was predicted but is not present as 0. A class that is present but never predicted has F1 0.

    Args:
        truth: (slides,) class positions.
        predicted: (slides,) class positions.
        classes: number of classes.
    """
    cells = confusion_cells(truth, predicted, classes)
    return float(macro(class_f1(confusions(np.ones((1, len(cells))), cells)))[0])


def confidence_bins(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Returns which of ten equal-width bins over [0, 1] each confidence falls into; 1.0 is in the last."""
    return np.minimum((confidence * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def log_losses(labels: NDArray[np.int64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns each slide's -ln p(truth), (slides,), p floored at 1e-15."""
    return np.asarray(-np.log(np.maximum(rows[np.arange(len(labels)), labels], PROBABILITY_FLOOR)))


def calibration_gaps(labels: NDArray[np.int64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns (slides, bins): confidence minus correctness, in the slide's bin; the ECE is the sum of |mean| over bins."""
    gaps = np.zeros((len(labels), CALIBRATION_BINS))
    confidence = rows.max(axis=1)
    gaps[np.arange(len(labels)), confidence_bins(confidence)] = confidence - (rows.argmax(axis=1) == labels)
    return gaps


def slide_metrics(
    truth: Sequence[str],
    probabilities: NDArray[np.float64],
    classes: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
    sure: NDArray[np.bool_] | None = None,
) -> dict[str, Estimate]:
    """Returns all metrics of the slides with their intervals; the order of the slides does not matter.

    - `macro_f1`, `balanced_accuracy` (mean recall): over the classes present in the truth; `accuracy`.
    - `log_loss`: mean of -ln p(truth), p floored at 1e-15; `brier`: mean squared error summed over classes, 0 to 2.
    - `ece`: expected calibration error of the top class, ten equal bins (Guo et al., ICML 2017).
    - `macro_auroc`: one-vs-rest, mean over the classes that have both positive and negative slides.
    - `f1/<class>`, `recall/<class>`: NaN for a class without slides; `precision/<class>`: NaN if never predicted.
    - `coverage` and `answered_accuracy` if `sure` is given: the share of slides on which the model does not abstain, and
      the accuracy on these; NaN if there are none.

    Args:
        truth: (slides,) labels.
        probabilities: (slides, classes), rows sum to one, columns in the order of `classes`.
        classes: the class order.
        groups: (slides,) patients, if one can have several slides; whole groups are then resampled.
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.
        sure: (slides,) false where the model abstains.

    Raises:
        ParameterError: no slides, an unknown label, or arrays whose shapes do not match.
    """
    labels, rows = checked(truth, probabilities, classes)
    answered = np.ones(len(labels), np.bool_) if sure is None else sure
    order, units = canonical_order(labels, [rows, answered[:, None].astype(np.float64)], groups)
    labels, rows, answered = labels[order], rows[order], answered[order]
    predicted = rows.argmax(axis=1)
    cells = confusion_cells(labels, predicted, len(classes), units)
    brier = ((rows - np.eye(len(classes))[labels]) ** 2).sum(axis=1)
    means = np.stack([np.ones(len(rows)), log_losses(labels, rows), brier, answered, answered & (predicted == labels)])
    sums, gaps = unit_sums(means.T, units), unit_sums(calibration_gaps(labels, rows), units)
    areas = [auroc(rows[:, index], labels == index, units) for index in range(len(classes))]

    def statistics(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        total, log_loss, brier, answers, correct = (weights @ sums).T
        matrices = confusions(weights, cells)  # (resamples, truth, predicted)
        hits = np.diagonal(matrices, axis1=1, axis2=2)
        f1 = class_f1(matrices)
        recall = ratio(hits, matrices.sum(axis=2))
        precision = ratio(hits, matrices.sum(axis=1))
        values = {
            "macro_f1": macro(f1),
            "accuracy": hits.sum(axis=1) / total,
            "balanced_accuracy": macro(recall),
            "log_loss": log_loss / total,
            "brier": brier / total,
            "ece": abs(weights @ gaps).sum(axis=1) / total,
            "macro_auroc": macro(np.stack([area(weights) for area in areas], axis=1)),
        }
        if sure is not None:
            values |= {"coverage": answers / total, "answered_accuracy": ratio(correct, answers)}
        for kind, table in zip(PER_CLASS, (f1, recall, precision), strict=True):
            values |= {f"{kind}/{name}": table[:, index] for index, name in enumerate(classes)}
        return values

    return bootstrap(statistics, units, resamples=resamples, seed=seed)


def patch_metrics(
    truth: Sequence[str],
    probabilities: NDArray[np.float64],
    classes: Sequence[str],
    *,
    slides: Sequence[str],
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Returns `slide_metrics` of the patches as `patch/<metric>`; whole slides are resampled.

    A slide's patches share its label and look alike, so the number of independent observations is that of the slides.
    A slide counts as often as it has patches.

    Args:
        truth: (patches,) labels.
        probabilities: (patches, classes), rows sum to one, columns in the order of `classes`.
        classes: the class order.
        slides: (patches,) each patch's slide, or its slide's group if a patient can have several slides.
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.

    Raises:
        ParameterError: see `slide_metrics`.
    """
    metrics = slide_metrics(truth, probabilities, classes, groups=slides, resamples=resamples, seed=seed)
    return {f"patch/{name}": estimate for name, estimate in metrics.items()}


def checked(
    truth: Sequence[str], probabilities: NDArray[np.float64], classes: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Returns the class positions and the probabilities in float64."""
    if len(set(classes)) != len(classes):
        raise ParameterError(f"classes must be distinct, got {list(classes)}")
    labels = class_indices(truth, classes)
    rows = np.asarray(probabilities, dtype=np.float64)
    if rows.shape != (len(labels), len(classes)):
        raise ParameterError(f"probabilities must be ({len(labels)} slides, {len(classes)} classes), got {rows.shape}")
    if not np.isfinite(rows).all() or (rows < 0).any() or (abs(rows.sum(axis=1) - 1) > ROW_SUM_TOLERANCE).any():
        raise ParameterError("slide probabilities must be finite, non-negative and sum to one in every row")
    return labels, rows


def canonical_order(
    labels: NDArray[np.int64], tables: Sequence[NDArray[np.float64]], groups: Sequence[str] | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns an order of the slides that depends on their content only, and each slide's resampling unit in that order.

    The bootstrap draws by position: without this, a different order of the slides would shift every interval slightly.
    Units are numbered from 0; a unit is a group, or a slide if there are no groups.
    """
    if len(labels) == 0:
        raise ParameterError("there are no slides to evaluate; check that the cohort has a hold-out")
    if groups is not None and len(groups) != len(labels):
        raise ParameterError(f"every slide needs a group: got {len(labels)} slides, {len(groups)} groups")
    units = np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups, str), return_inverse=True)[1]
    keys = [] if groups is None else [units]
    order = np.lexsort([*keys, *(column for table in tables for column in table.T), labels])
    return order, units if groups is None else units[order]
