"""Answers for slides without labels, and the reasons of those that cannot be answered."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.cleaning.reading import read_slide
from doctogres.engine import map_slides
from doctogres.errors import CohortError, DoctogresError
from doctogres.evaluation.predictions import PROBABILITY, Predictions
from doctogres.model.answer import CutSlide, SlideAnswer
from doctogres.slides.opening import open_slide
from doctogres.slides.reasons import Reason, written
from doctogres.slides.source import SlideSource
from doctogres.slides.table import KEPT

if TYPE_CHECKING:  # the web page makes the table of its answers without torch
    from doctogres.model.classifier import SlideClassifier

ANSWERED: Final = "answered"
GUESSED: Final = "guessed"  # no answer is possible: the label is the most frequent class of the training slides


def answers(
    classifier: "SlideClassifier", slides: pd.DataFrame, root: Path, *, mpp: float | None = None
) -> Iterator[tuple[Any, SlideAnswer | DoctogresError]]:
    """Yields every slide's row with its answer, or with the error that says why there is none.

    A slide without a mask is classified by its tissue, as the served model does; `mpp` are the microns per pixel of slides
    whose files say none.
    """

    def cut(row: Any) -> CutSlide | DoctogresError:
        if row.outcome != KEPT and not lacks_mask(row):
            return CohortError(row.reason)
        try:
            picture, mask, note = pixels_of(root, row)
            return classifier.cut(picture.unless_known(mpp), mask, note)
        except DoctogresError as error:
            return error

    rows = slides.itertuples(index=False)
    return zip(rows, classifier.answers(map_slides(cut, slides.itertuples(index=False))), strict=True)


def lacks_mask(row: Any) -> bool:
    """Whether the only thing wrong with a slide is that it has no mask."""
    return Reason.of(row.reason) == Reason.MISSING_MASK


def pixels_of(root: Path, row: Any) -> tuple[SlideSource, npt.NDArray[np.bool_] | None, str]:
    """The picture, the mask, (height, width), None if the slide has none, and a note on the two."""
    return (open_slide(root / row.image, name=row.image), None, "") if lacks_mask(row) else read_slide(root, row)


def row_of(
    row: Any, answer: SlideAnswer | DoctogresError, classifier: "SlideClassifier"
) -> tuple[dict[str, Any], npt.NDArray[np.float64]]:
    """The slide's row in the table of predictions, and its probabilities (classes,)."""
    classes, shares = classifier.card.classes, classifier.card.class_shares
    base = {"slide_id": row.slide_id, "sample_index": _sample(row)}
    if isinstance(answer, SlideAnswer):
        known = {"label": answer.label, "outcome": ANSWERED, "reason": answer.note, "n_patches": len(answer.patches)}
        known |= {"confidence": answer.confidence, "abstained": answer.abstained, "mask_source": answer.mask_source}
        known |= {"labels": answer.valid_labels, "novelty": np.nan if answer.novelty is None else answer.novelty}
        return base | known, answer.probabilities
    reason = row.reason if str(answer) == row.reason else written(answer.code, answer)
    guess = {"label": classes[int(np.argmax(shares))], "outcome": GUESSED, "reason": reason, "n_patches": 0}
    guess |= {"confidence": 0.0, "abstained": True, "mask_source": "", "labels": "", "novelty": np.nan}
    return base | guess, np.array(shares)


def _sample(row: Any) -> str:
    """The name of the slide's picture; of the slide, where pictures in several folders have one name."""
    picture = Path(row.image or f"{row.slide_id}.png")
    return picture.name if picture.stem == row.slide_id else f"{row.slide_id}{picture.suffix}"


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
