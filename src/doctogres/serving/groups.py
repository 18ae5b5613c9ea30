"""The answer for a group (a patient) in the rows of a request whose column `group` names some."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from doctogres.model.card import ClassifierCard
from doctogres.model.group_answer import SlideOfGroup

NO_RULE: Final = (
    "this model gives no answer for a group; its evidence.json says why (group_answer), and group_answer=mean in its training "
    "would give one"
)
WITHOUT: Final[dict[str, Any]] = {
    "group": None,
    "group_label": None,
    "group_abstained": None,
    "group_confidence": None,
    "group_probabilities": {},
    "group_slides": None,
    "group_reasons": [],
    "group_left_out": [],
}


def with_groups(rows: list[dict[str, Any]], groups: Sequence[str], card: ClassifierCard) -> list[dict[str, Any]]:
    """The rows, each with the answer for its group; as they are if the request names no group.

    Args:
        rows: of the answer, one for each slide.
        groups: (slides,) empty where a slide has none.
        card: of the model.
    """
    if not any(groups):
        return rows
    of_group: dict[str, list[SlideOfGroup]] = {}
    for row, group in zip(rows, groups, strict=True):
        of_group.setdefault(group, []).append(_slide(row, card))
    answers = {group: _answer(slides, card) | {"group": group} for group, slides in of_group.items() if group}
    return [row | WITHOUT | answers.get(group, {}) for row, group in zip(rows, groups, strict=True)]


def _slide(row: Mapping[str, Any], card: ClassifierCard) -> SlideOfGroup:
    shares = np.array([row["probabilities"][name] for name in card.classes]) if row["label"] else None
    return SlideOfGroup(row["slide_id"], shares, row["reasons"])


def _answer(slides: Sequence[SlideOfGroup], card: ClassifierCard) -> dict[str, Any]:
    if card.group is None:
        return {"group_abstained": True, "group_slides": 0, "group_reasons": [NO_RULE]}
    answer = card.group.answer(slides, card.classes)
    return {
        "group_label": answer.label or None,
        "group_abstained": bool(answer.reasons),
        "group_confidence": answer.confidence if answer.label else None,
        "group_probabilities": dict(answer.probabilities),
        "group_slides": answer.slides,
        "group_reasons": list(answer.reasons),
        "group_left_out": list(answer.left_out),
    }
