"""Several models on the same slides: macro-F1 of each, and paired differences between them."""

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
    """Macro-F1 by model: its estimate, its difference to the model it is compared with, and its networks' range."""

    values: dict[str, Estimate]
    differences: dict[str, Estimate]  # of the models that are compared with another one
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

    A model's score is the mean over its networks (seeds or repeats) of their macro-F1. What makes a slide hard for two
    models cancels in their difference: an interval that excludes zero is a difference even where the models' own
    intervals overlap. The intervals are about the slides: how much training itself varies is in `spread`, and with one
    network the comparison is of two networks, not of two recipes. The order of the slides changes nothing.

    Args:
        truth: (slides,) labels.
        models: name -> slide probabilities of one or several networks, (slides, classes) each.
        classes: the class order.
        against: model -> the model that is subtracted from it; a model that is no key gets no difference.
        groups: (slides,) patients, if several slides can share one; whole groups are then resampled.
        resamples: bootstrap resamples.
        seed: of the bootstrap.

    Raises:
        ParameterError: a model without networks, one in `against` that is not there, or see `metrics.slide_metrics`.
    """
    if missing := sorted({*against, *against.values()} - models.keys()):
        raise ParameterError(f"models {missing} are to be compared and have no predictions; there are {list(models)}")
    if empty := [name for name, networks in models.items() if not len(networks)]:
        raise ParameterError(f"models {empty} have no network's predictions; give one table of probabilities or more")
    tables = {name: [checked(truth, one, classes)[1] for one in networks] for name, networks in models.items()}
    labels = class_indices(truth, classes)
    order, units = canonical_order(labels, [table for name in sorted(tables) for table in tables[name]], groups)
    cells = {
        name: [confusion_cells(labels[order], table[order].argmax(axis=1), len(classes), units) for table in networks]
        for name, networks in tables.items()
    }

    def scores(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """(resamples, units) weights -> (networks, resamples) macro-F1 by model."""
        return {
            name: np.stack([macro(class_f1(confusions(weights, one))) for one in networks])
            for name, networks in cells.items()
        }

    def means(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        return {name: several.mean(axis=0) for name, several in scores(weights).items()}

    draws = resample(means, units, resamples=resamples, seed=seed)
    alone = {name: several[:, 0] for name, several in scores(np.ones((1, int(units.max()) + 1))).items()}
    values = {name: float(several.mean()) for name, several in alone.items()}
    return Comparison(
        {name: percentile_estimate(value, draws[name]) for name, value in values.items()},
        {
            name: percentile_estimate(values[name] - values[other], draws[name] - draws[other])
            for name, other in against.items()
        },
        {name: (float(several.min()), float(several.max())) for name, several in alone.items()},
    )
