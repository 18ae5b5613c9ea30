"""The answer for a group (a patient), from the answers of its slides. Does not import torch.

Evaluation, prediction and the served model all answer with `GroupRule.answer`, so their answers are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from doctogres.model.temperature import PROBABILITY_FLOOR, Calibration, apply_temperature
from doctogres.slides.reasons import Reason

Array = npt.NDArray[np.float64]
Pooling = Literal["mean", "log_probabilities"]


@dataclass(frozen=True)
class SlideOfGroup:
    """What the answer for a group needs to know of a slide.

    Attributes:
        slide_id: its name.
        probabilities: (classes,), calibrated; None if the slide has no answer.
        reasons: why the model is not sure of it, or why there is no answer.
    """

    slide_id: str
    probabilities: Array | None
    reasons: Sequence[str] = ()

    @property
    def doubts(self) -> list[str]:
        """The reasons that do not come from its probabilities: its mask, or that it is unlike the training slides."""
        others = [reason for reason in self.reasons if not reason.startswith(f"{Reason.LOW_CONFIDENCE}: ")]
        return [reason if reason.startswith(self.slide_id) else f"{self.slide_id}: {reason}" for reason in others]


@dataclass(frozen=True)
class GroupAnswer:
    """The answer for a group.

    Attributes:
        label: empty if no slide has an answer.
        probabilities: class -> probability, calibrated for groups; empty without a label.
        confidence: the label's probability.
        slides: number of slides that count.
        reasons: why the model is not sure; empty if it is.
        left_out: slides without an answer, which do not count, each with its reason.
    """

    label: str
    probabilities: Mapping[str, float]
    confidence: float
    slides: int
    reasons: tuple[str, ...]
    left_out: tuple[str, ...]


class GroupRule(BaseModel):
    """How a model answers for a group; stored in its card.

    The probabilities of the slides are put together by `method` (the mean, or the normalised geometric mean: a product of
    experts that count 1/n each; Hinton, Products of experts, 1999), then calibrated by a temperature of their own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Pooling
    calibration: Calibration  # of groups

    def answer(self, slides: Sequence[SlideOfGroup], classes: Sequence[str]) -> GroupAnswer:
        """The answer for the slides of one group; one that is doubtful makes the group's answer not sure."""
        counted = [slide for slide in slides if slide.probabilities is not None]
        left_out = tuple(text for slide in slides if slide.probabilities is None for text in slide.doubts)
        if not counted:
            return GroupAnswer("", {}, 0.0, 0, ("no slide of the group has an answer",), left_out)
        pooled = pool(
            np.stack([slide.probabilities for slide in counted if slide.probabilities is not None]), self.method
        )
        rows = apply_temperature(pooled, self.calibration.temperature)
        confidence = float(rows.max())
        unsure = self.calibration.low_confidence(confidence)
        return GroupAnswer(
            label=classes[int(rows.argmax())],
            probabilities=dict(zip(classes, rows.tolist(), strict=True)),
            confidence=confidence,
            slides=len(counted),
            reasons=tuple(filter(None, [unsure, *(text for slide in counted for text in slide.doubts)])),
            left_out=left_out,
        )


def pool(probabilities: Array, method: Pooling) -> Array:
    """Slides' probabilities as their group's, (slides, classes) -> (classes,)."""
    if method == "mean":
        return np.asarray(probabilities.mean(axis=0))
    logs = np.log(np.maximum(probabilities, PROBABILITY_FLOOR)).mean(axis=0)
    odds = np.exp(logs - logs.max())
    return np.asarray(odds / odds.sum())
