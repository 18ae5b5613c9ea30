"""The results ladder: macro-F1 of every row on the same slides, and its gain over the previous row."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from doctogres.errors import ParameterError
from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.comparison import compare
from doctogres.evaluation.metrics import class_indices, macro_f1
from doctogres.evaluation.predictions import Predictions

HELPS: Final = "helps"
HURTS: Final = "hurts"
NOT_SHOWN: Final = "not shown"
SAME: Final = "same recipe"


@dataclass(frozen=True)
class ScoredRow:
    """A row of the ladder with the predictions of its networks, one per seed, on the same slides."""

    name: str
    predictions: Sequence[Predictions]
    changes: str  # relative to the previous row
    seconds: float
    runs: Sequence[str]  # the evaluations, one per seed


def ladder_table(rows: Sequence[ScoredRow], classes: Sequence[str], *, resamples: int, seed: int) -> pd.DataFrame:
    """Returns one line per row: its macro-F1, the paired difference from the previous row, and the verdict on it.

    Columns: row, macro_f1 (mean over the seeds), low, high, lowest_seed, highest_seed, difference, difference_low,
    difference_high (empty in the first row), verdict, seconds, runs, changes, by_seed (macro-F1 of each seed). Intervals
    are those of `comparison.compare`: 95 %, over the slides. A class unknown to a row's networks has probability 0.

    Args:
        rows: in the ladder's order, with distinct names.
        classes: all classes of the cohort.
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.

    Raises:
        ParameterError: a row was evaluated on other slides than the first one, or see `comparison.compare`.
    """
    reference = rows[0].predictions[0].rows.set_index("slide_id")
    truth, groups = reference["label"].tolist(), reference["group"].tolist()
    models = {
        row.name: [_probabilities(row.name, table, reference, classes) for table in row.predictions] for row in rows
    }
    against = {row.name: previous.name for previous, row in pairwise(rows)}
    compared = compare(truth, models, classes, against=against, groups=groups, resamples=resamples, seed=seed)
    labels = class_indices(truth, classes)
    lines = []
    for previous, row in zip([None, *rows], rows, strict=False):
        value, difference = compared.values[row.name], compared.differences.get(row.name)
        by_seed = [macro_f1(labels, table.argmax(axis=1), len(classes)) for table in models[row.name]]
        line: dict[str, Any] = {"row": row.name, "macro_f1": value.value, "low": value.low, "high": value.high}
        line["lowest_seed"], line["highest_seed"] = compared.spread[row.name]
        line |= dict.fromkeys(("difference", "difference_low", "difference_high"), np.nan) | {"verdict": ""}
        if difference and previous:
            line |= {"difference": difference.value, "difference_low": difference.low}
            line |= {"difference_high": difference.high}
            line["verdict"] = SAME if row.runs == previous.runs else verdict(difference)
        line |= {"seconds": row.seconds, "runs": " ".join(row.runs), "changes": row.changes}
        lines.append(line | {"by_seed": " ".join(f"{score:.6f}" for score in by_seed)})
    return pd.DataFrame(lines)


def verdict(difference: Estimate) -> str:
    """Returns `helps` or `hurts` if the interval of the difference excludes zero, otherwise `not shown`."""
    return HELPS if difference.low > 0 else HURTS if difference.high < 0 else NOT_SHOWN


def _probabilities(
    row: str, predictions: Predictions, reference: pd.DataFrame, classes: Sequence[str]
) -> NDArray[np.float64]:
    """(slides, classes), in the order of the reference slides."""
    labels = predictions.rows.set_index("slide_id")["label"]
    if set(labels.index) != set(reference.index) or not labels.loc[reference.index].equals(reference["label"]):
        raise ParameterError(
            f"{row}: its {len(labels)} evaluated slides or their labels differ from the {len(reference)} of the first row; "
            "all rows must be evaluated on the same hold-out"
        )
    return predictions.of_slides(list(reference.index), classes)
