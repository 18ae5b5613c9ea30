"""The answers for the groups (patients) of evaluated slides, as a table and as metrics with intervals."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from doctogres.errors import DoctogresError, listed
from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.metrics import slide_metrics
from doctogres.evaluation.predictions import Predictions
from doctogres.model.answer import SlideAnswer
from doctogres.model.card import ClassifierCard
from doctogres.model.group_answer import GroupAnswer, SlideOfGroup

GROUP: Final = "group/"  # before the name of a metric
ANSWERED: Final = ("group", "predicted", "confidence", "abstained", "reason", "slides", "left_out")


def group_answers(
    groups: Sequence[str], slides: Sequence[str], answers: Iterable[SlideAnswer | DoctogresError], card: ClassifierCard
) -> dict[str, GroupAnswer]:
    """The answer for every group, by name; none if the model has no rule for groups.

    Args:
        groups: (slides,) group of each slide.
        slides: (slides,) names.
        answers: (slides,) of the model.
        card: of the model.
    """
    members: dict[str, list[SlideOfGroup]] = {}
    for group, name, answer in zip(groups, slides, answers, strict=True):
        if isinstance(answer, SlideAnswer):
            slide = SlideOfGroup(name, answer.probabilities, answer.reasons)
        else:
            slide = SlideOfGroup(name, None, (str(answer),))
        members.setdefault(str(group), []).append(slide)
    rule = card.group
    return {group: rule.answer(of_group, card.classes) for group, of_group in members.items()} if rule else {}


def group_table(answers: dict[str, GroupAnswer], classes: Sequence[str]) -> Predictions:
    """The content of group_predictions.csv: a row per group, with the columns `ANSWERED`."""
    rows = [
        (
            group,
            one.label,
            one.confidence,
            bool(one.reasons),
            "; ".join(one.reasons),
            one.slides,
            "; ".join(one.left_out),
        )
        for group, one in answers.items()
    ]
    shares = [[one.probabilities.get(name, np.nan) for name in classes] for one in answers.values()]
    return Predictions(pd.DataFrame(rows, columns=list(ANSWERED)), tuple(classes), np.array(shares, np.float64))


@dataclass(frozen=True)
class ScoredGroups:
    """Groups as units of an evaluation.

    Attributes:
        table: of `group_table`, with the column `label`; empty where the slides of a group have several labels.
        metrics: as for slides, with `group/` before their names; of the groups with one label.
        note: how many groups were scored, and which were not, in a sentence.
    """

    table: Predictions
    metrics: dict[str, Estimate]
    note: str


def scored_groups(
    slides: pd.DataFrame, answers: Sequence[SlideAnswer], card: ClassifierCard, **options: Any
) -> ScoredGroups | None:
    """The groups' answers and their scores; None if the model gives none.

    Args:
        slides: slide_id, label, group.
        answers: (slides,) of the model.
        card: of the model.
        options: of `slide_metrics`: `resamples`, `seed`.
    """
    names = slides["group"].astype(str).tolist()
    found = group_answers(names, slides["slide_id"].tolist(), answers, card)
    if not found:
        return None
    labels = slides.groupby(slides["group"].astype(str))["label"].agg(["nunique", "first"]).loc[list(found)]
    table = group_table(found, card.classes)
    table.rows.insert(1, "label", labels["first"].where(labels["nunique"] == 1, "").tolist())
    known = (table.rows["label"] != "").to_numpy()
    several = int((slides["group"].astype(str).value_counts() > 1).sum())
    note = f"{int(known.sum())} of {len(known)} groups are scored, {several} of all have several slides"
    if mixed := sorted(table.rows.loc[~known, "group"]):
        note += f"; {len(mixed)} whose slides have different labels are not: {listed(mixed)}"
    metrics = (
        slide_metrics(
            table.rows.loc[known, "label"].tolist(),
            table.probabilities[known],
            card.classes,
            sure=~table.rows.loc[known, "abstained"].to_numpy(bool),
            **options,
        )
        if known.any()
        else {}
    )
    return ScoredGroups(table, {f"{GROUP}{name}": value for name, value in metrics.items()}, f"{note}.")
