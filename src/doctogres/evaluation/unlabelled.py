"""Answers for slides without labels, and what is said of those that cannot be answered."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.cleaning.reading import read_slide
from doctogres.engine import map_slides
from doctogres.errors import CohortError, DoctogresError
from doctogres.model.answer import CutSlide, SlideAnswer
from doctogres.model.classifier import SlideClassifier
from doctogres.slides.reasons import written
from doctogres.slides.table import KEPT

ANSWERED: Final = "answered"
GUESSED: Final = "guessed"  # no answer is possible: the training part's most frequent class stands in the submission


def answers(
    classifier: SlideClassifier, slides: pd.DataFrame, root: Path
) -> Iterator[tuple[Any, SlideAnswer | DoctogresError]]:
    """Yields every slide's row with its answer, or with the error that says why there is none."""

    def cut(row: Any) -> CutSlide | DoctogresError:
        if row.outcome != KEPT:
            return CohortError(row.reason)
        try:
            return classifier.cut(*read_slide(root, row))
        except DoctogresError as error:
            return error

    rows = slides.itertuples(index=False)
    return zip(rows, classifier.answers(map_slides(cut, slides.itertuples(index=False))), strict=True)


def row_of(
    row: Any, answer: SlideAnswer | DoctogresError, classifier: SlideClassifier
) -> tuple[dict[str, Any], npt.NDArray[np.float64]]:
    """What is said of a slide, and its probabilities (classes,)."""
    classes, shares = classifier.card.classes, classifier.card.class_shares
    base = {"slide_id": row.slide_id, "sample_index": _sample(row)}
    if isinstance(answer, SlideAnswer):
        known = {"label": answer.label, "outcome": ANSWERED, "reason": answer.note, "n_patches": len(answer.patches)}
        known |= {"confidence": answer.confidence, "abstained": answer.abstained}
        return base | known, answer.probabilities
    reason = row.reason or written(answer.code, answer)
    guess = {"label": classes[int(np.argmax(shares))], "outcome": GUESSED, "reason": reason, "n_patches": 0}
    guess |= {"confidence": 0.0, "abstained": True}
    return base | guess, np.array(shares)


def _sample(row: Any) -> str:
    """The name of the slide's picture; of the slide, where pictures in several folders have one name."""
    picture = Path(row.image or f"{row.slide_id}.png")
    return picture.name if picture.stem == row.slide_id else f"{row.slide_id}{picture.suffix}"
