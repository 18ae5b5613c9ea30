"""Scores by subgroup: site, scanner, age, ..."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from doctogres.evaluation.metrics import slide_metrics
from doctogres.evaluation.stored import StoredEstimate
from doctogres.slides.subgroups import SUBGROUP

FEWEST_GROUPS: Final = 10  # with fewer independent units, a bootstrap interval is far too narrow
MOST_VALUES: Final = 30  # a column with more is no subgroup but a name or a number of its own
CUT_ABOVE: Final = 6  # numbers with more different values are cut into quarters
QUARTERS: Final = 4
MISSING: Final = "not given"
METRICS: Final = ("macro_f1", "accuracy", "coverage")


class Subgroup(BaseModel):
    """The scores of the slides with one value of a column.

    Attributes:
        column: its name.
        value: of the column; `MISSING` where there is none.
        slides: number of slides.
        groups: number of groups (patients).
        classes: number of classes among the slides; macro-F1 is the mean over these.
        metrics: macro_f1, accuracy, coverage (the share of slides of which the model is sure); empty with too few groups.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    value: str
    slides: int
    groups: int
    classes: int
    metrics: dict[str, StoredEstimate]

    @property
    def name(self) -> str:
        """Column and value: `site north`."""
        return f"{self.column} {self.value}"

    @property
    def too_few(self) -> str:
        """Why there are no scores; empty if there are."""
        return "" if self.metrics else f"too few groups ({self.groups}, at least {FEWEST_GROUPS})"


def subgroup_scores(
    slides: pd.DataFrame,
    columns: Sequence[str],
    probabilities: NDArray[np.float64],
    classes: Sequence[str],
    *,
    sure: NDArray[np.bool_],
    **options: Any,
) -> tuple[Subgroup, ...]:
    """The scores of every subgroup, column by column, ranges of numbers by size, others largest first; groups are resampled.

    Args:
        slides: label, group, and the columns.
        columns: of `subgroup_columns`; one with more than MOST_VALUES subgroups is left out.
        probabilities: (slides, classes).
        classes: the class order.
        sure: (slides,) false where the model abstains.
        options: of `slide_metrics`: `resamples`, `seed`.
    """
    found = []
    for column in columns:
        values = cut(slides[column])
        if values.nunique() > MOST_VALUES:
            continue
        counts = values.value_counts()
        for value in sorted(counts.index, key=lambda value: (value == MISSING, _start(value), -counts[value], value)):
            rows = (values == value).to_numpy()
            of_value = slides[rows]
            groups, labels = of_value["group"].astype(str).tolist(), of_value["label"].tolist()
            known = (
                slide_metrics(labels, probabilities[rows], classes, groups=groups, sure=sure[rows], **options)
                if len(set(groups)) >= FEWEST_GROUPS
                else {}
            )
            found.append(
                Subgroup(
                    column=column.removeprefix(SUBGROUP),
                    value=str(value),
                    slides=len(labels),
                    groups=len(set(groups)),
                    classes=len(set(labels)),
                    metrics={name: known[name] for name in METRICS if name in known},
                )
            )
    return tuple(found)


def cut(values: pd.Series) -> pd.Series:
    """The subgroup of every slide.

    Numbers with more than CUT_ABOVE different values are cut at their quartiles into four ranges, named by the lowest and
    highest value in them (`34 to 51`); other values are subgroups of their own.
    """
    texts = values.fillna("").astype(str)
    numbers = pd.to_numeric(texts.where(texts != ""), errors="coerce")
    if (
        numbers.notna().sum() < (texts != "").sum()
        or numbers.nunique() <= CUT_ABOVE
        or not np.isfinite(numbers.dropna()).all()
    ):
        return texts.where(texts != "", MISSING)
    quarters = pd.qcut(numbers, QUARTERS, labels=False, duplicates="drop")
    ends = numbers.groupby(quarters).agg(["min", "max"])
    names = {quarter: _range(low, high) for quarter, low, high in ends.itertuples()}
    return quarters.map(names).fillna(MISSING)


def _range(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _start(value: str) -> float:
    """Where a range or number begins, for the order of a column's subgroups; 0 for anything else."""
    try:
        return float(value.split(" to ")[0])
    except ValueError:
        return 0.0


def smallest_subgroup(subgroups: Sequence[Subgroup]) -> str:
    """Which subgroup is the smallest, in a sentence; empty without any."""
    given = [one for one in subgroups if one.value != MISSING] or list(subgroups)
    if not given:
        return ""
    least = min(given, key=lambda one: (one.groups, one.slides))
    return f"The smallest subgroup is {least.name}: {least.slides} slides of {least.groups} groups."
