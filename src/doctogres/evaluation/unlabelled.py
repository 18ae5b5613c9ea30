"""Answers for slides without labels, and the reasons of those that cannot be answered."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.errors import DoctogresError
from doctogres.evaluation.predictions import PROBABILITY, Predictions
from doctogres.model.answer import SlideAnswer
from doctogres.model.card import ClassifierCard
from doctogres.records.slide import Slide
from doctogres.slides.reasons import written

ANSWERED: Final = "answered"
GUESSED: Final = "guessed"  # no answer is possible: the label is the most frequent class of the training slides


def row_of(
    slide: Slide, answer: SlideAnswer | DoctogresError, card: ClassifierCard
) -> tuple[dict[str, Any], npt.NDArray[np.float64]]:
    """The slide's row in the table of predictions, and its probabilities (classes,)."""
    classes, shares = card.classes, card.class_shares
    base = {"slide_id": slide.slide_id, "sample_index": _sample(slide)}
    if isinstance(answer, SlideAnswer):
        known = {"label": answer.label, "outcome": ANSWERED, "reason": answer.note, "n_patches": len(answer.patches)}
        known |= {"confidence": answer.confidence, "abstained": answer.abstained, "mask_source": answer.mask_source}
        known |= {"labels": answer.valid_labels, "novelty": np.nan if answer.novelty is None else answer.novelty}
        return base | known, answer.probabilities
    reason = slide.reason if str(answer) == slide.reason else written(answer.code, answer)
    guess = {"label": classes[int(np.argmax(shares))], "outcome": GUESSED, "reason": reason, "n_patches": 0}
    guess |= {"confidence": 0.0, "abstained": True, "mask_source": "", "labels": "", "novelty": np.nan}
    return base | guess, np.array(shares)


def _sample(slide: Slide) -> str:
    """The name of the slide's picture; of the slide, where pictures in several folders have one name."""
    picture = Path(slide.image or f"{slide.slide_id}.png")
    return picture.name if picture.stem == slide.slide_id else f"{slide.slide_id}{picture.suffix}"


def readable(predictions: Predictions, model: str | Sequence[str]) -> pd.DataFrame:
    """The table for people, predictions.csv: a row per slide, empty where there is no answer.

    Columns slide_id, label, sure, confidence, a `p_<class>` for every class, labels, novelty, patches, mask_source, reason, model.
    """
    rows = predictions.rows
    answered = rows["outcome"] == ANSWERED
    shares = np.where(answered.to_numpy()[:, None], predictions.probabilities, np.nan)
    left = pd.DataFrame(
        {
            "slide_id": rows["slide_id"],
            "label": rows["label"].where(answered, ""),
            "sure": ~rows["abstained"],
            "confidence": rows["confidence"].where(answered),
        }
    )
    right = pd.DataFrame(
        {
            "labels": rows["labels"],
            "novelty": rows["novelty"],
            "patches": rows["n_patches"],
            "mask_source": rows["mask_source"],
            "reason": rows["reason"],
            "model": model,
        }
    )
    columns = [f"{PROBABILITY}{name}" for name in predictions.classes]
    return pd.concat([left, pd.DataFrame(shares, columns=columns), right], axis=1)


def submitted(predictions: Predictions, unanswered: str) -> pd.DataFrame:
    """submission.csv: sample_index and label of every slide.

    Args:
        predictions: of `predict`.
        unanswered: `empty` leaves the label of a slide without an answer empty; otherwise it is the guess.
    """
    rows = predictions.rows[["sample_index", "label"]]
    if unanswered == "empty":
        return rows.assign(label=rows["label"].where(predictions.rows["outcome"] == ANSWERED, ""))
    return rows
