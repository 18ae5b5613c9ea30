"""Compares models on the same slides: macro-F1 of each, and paired differences between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from doctogres.errors import ParameterError
from doctogres.evaluation.bootstrap import Estimate, percentile_estimate, resample
from doctogres.evaluation.metrics import canonical_order, checked, class_indices
from doctogres.evaluation.weighted import class_f1, confusion_cells, confusions, macro


@dataclass(frozen=True)
class Comparison:
    """Macro-F1 by model: estimate, difference from the model it is compared with, and range over its networks."""

    values: dict[str, Estimate]
    differences: dict[str, Estimate]  # only of models that are compared with another one
    spread: dict[str, tuple[float, float]]  # lowest and highest over the model's networks


def compare(
    truth: Sequence[str],
    models: Mapping[str, Sequence[NDArray[np.float64]]],
    classes: Sequence[str],
    *,
    against: Mapping[str, str],
    groups: Sequence[str] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Returns every model's macro-F1 and the paired differences, all from the same resamples of the same slides.

    A model's score is the mean macro-F1 of its networks (seeds or repeats). What makes a slide hard for both models
    cancels out in their difference: an interval that excludes zero shows a difference even if the models' own intervals
    overlap. The intervals reflect the choice of slides; the variation between trainings is in `spread`. With one network
    each, two networks are compared, not two recipes. The order of the slides does not matter.

    Args:
        truth: (slides,) labels.
        models: name -> slide probabilities of one or more networks, (slides, classes) each.
        classes: the class order.
        against: model -> the model whose score is subtracted; models without an entry get no difference.
        groups: (slides,) patients, if one can have several slides; whole groups are then resampled.
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.

    Raises:
        ParameterError: a model without networks, an unknown model in `against`, or see `metrics.slide_metrics`.
    """
    if missing := sorted({*against, *against.values()} - models.keys()):
        raise ParameterError(
            f"models {missing} are to be compared but have no predictions; known models: {list(models)}"
        )
    if empty := [name for name, networks in models.items() if not len(networks)]:
        raise ParameterError(f"models {empty} have no predictions; give at least one table of probabilities")
    tables = {name: [checked(truth, table, classes)[1] for table in networks] for name, networks in models.items()}
    labels = class_indices(truth, classes)
    order, units = canonical_order(labels, [table for name in sorted(tables) for table in tables[name]], groups)
    cells = {
        name: [confusion_cells(labels[order], table[order].argmax(axis=1), len(classes), units) for table in networks]
        for name, networks in tables.items()
    }

    def scores(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """(resamples, units) weights -> (networks, resamples) macro-F1 by model."""
        return {
            name: np.stack([macro(class_f1(confusions(weights, counts))) for counts in networks])
            for name, networks in cells.items()
        }

    def means(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {name: by_network.mean(axis=0) for name, by_network in scores(weights).items()}

    draws = resample(means, units, resamples=resamples, seed=seed)
    observed = {name: by_network[:, 0] for name, by_network in scores(np.ones((1, int(units.max()) + 1))).items()}
    values = {name: float(by_network.mean()) for name, by_network in observed.items()}
    return Comparison(
        {name: percentile_estimate(value, draws[name]) for name, value in values.items()},
        {
            name: percentile_estimate(values[name] - values[other], draws[name] - draws[other])
            for name, other in against.items()
        },
        {name: (float(by_network.min()), float(by_network.max())) for name, by_network in observed.items()},
    )
