"""The null models, which never look at a slide."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from doctogres.errors import ParameterError
from doctogres.evaluation.bootstrap import Estimate, percentile_estimate, resample
from doctogres.evaluation.metrics import canonical_order, class_indices
from doctogres.evaluation.weighted import class_f1, confusion_cells, confusions, macro, unit_sums

# Metric -> description.
NULL_MODELS: Final = {
    "majority/macro_f1": "always predicting the most frequent class",
    "chance/macro_f1": "random guessing by class frequency",
}


def null_metrics(
    truth: Sequence[str],
    training: Sequence[str] | Mapping[str, float],
    classes: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Returns the macro-F1 of two null models on these slides.

    - `majority/macro_f1`: always the most frequent class in the training set (ties: the first in class order).
    - `chance/macro_f1`: guesses drawn with the class frequencies of the training set. The value is the mean over simulated
      rounds of guessing on these slides; the interval covers single rounds of guessing on resampled slides.

    Args:
        truth: (slides,) labels.
        training: the labels of the training slides, or the share of each class among them.
        classes: the class order.
        groups: (slides,) patients; whole groups are resampled.
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.

    Raises:
        ParameterError: no slides, no training labels, or an unknown label.
    """
    labels = class_indices(truth, classes)
    order, units = canonical_order(labels, [], groups)
    labels = labels[order]
    train_counts = _counts(training, classes)
    if train_counts.sum() == 0:
        raise ParameterError("the null models need training labels, and there are none")
    shares = train_counts / train_counts.sum()
    cells = confusion_cells(labels, np.full(len(labels), train_counts.argmax()), len(classes), units)
    membership = unit_sums(np.eye(len(classes))[labels], units)  # (units, classes)
    rng = np.random.default_rng([seed, 1])  # independent of the bootstrap's stream

    def guessed(class_counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """(resamples, classes) slides per class -> (resamples,) macro-F1 of one round of guessing on each row."""
        return macro(class_f1(rng.multinomial(class_counts.astype(np.int64), shares).astype(np.float64)))

    def statistics(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        majority_f1 = macro(class_f1(confusions(weights, cells)))
        return {"majority/macro_f1": majority_f1, "chance/macro_f1": guessed(weights @ membership)}

    draws = resample(statistics, units, resamples=resamples, seed=seed)
    observed = np.ones((1, len(membership)))
    rounds = guessed(np.repeat(observed @ membership, resamples, axis=0))
    values = {"majority/macro_f1": statistics(observed)["majority/macro_f1"][0], "chance/macro_f1": rounds.mean()}
    return {name: percentile_estimate(float(value), draws[name]) for name, value in values.items()}


def _counts(training: Sequence[str] | Mapping[str, float], classes: Sequence[str]) -> NDArray[np.float64]:
    """The training slides of each class, or their shares, (classes,)."""
    if isinstance(training, Mapping):
        return np.array([training.get(name, 0.0) for name in classes])
    return np.bincount(class_indices(training, classes), minlength=len(classes)).astype(np.float64)
