"""Slides and a model's answers to them: the same in this process, in a share of the slides, and on Spark."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from doctogres.cleaning.reading import read_slide
from doctogres.engine import map_slides
from doctogres.errors import CohortError, DoctogresError
from doctogres.model.answer import CutSlide, SlideAnswer
from doctogres.model.outlined import outlined_answer
from doctogres.records.slide import Slide
from doctogres.slides.opening import open_slide
from doctogres.slides.reasons import Reason
from doctogres.slides.source import SlideSource
from doctogres.slides.table import DROPPED

if TYPE_CHECKING:  # a joined run loads no networks
    from doctogres.model.classifier import SlideClassifier


@dataclass(frozen=True)
class Answered:
    """The answer to a slide, and if wanted its patches as GeoJSON."""

    answer: SlideAnswer
    outlines: str = ""


@dataclass(frozen=True)
class Answering:
    """Answers slides; `Work` of `records.slide`.

    Attributes:
        root: the folder of the slides.
        model: the folder of the classifier.
        mpp: microns per pixel of slides whose files say none.
        outlined: the name that the model has in outlines; empty for none.
    """

    root: Path
    model: Path
    mpp: float | None = None
    outlined: str = ""
    record: ClassVar = Answered

    def __call__(self, slides: Iterable[Slide], *, workers: int | None = None) -> Iterator[Answered | DoctogresError]:
        """See `answered`; the first call in a process loads the model, and later ones find it loaded."""
        classifier = _loaded(self.model)
        return answered(classifier, slides, self.root, mpp=self.mpp, outlined=self.outlined, workers=workers)


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> "SlideClassifier":
    from doctogres.model.classifier import SlideClassifier

    return SlideClassifier.load(folder)


def answered(
    classifier: "SlideClassifier",
    slides: Iterable[Slide],
    root: Path,
    *,
    mpp: float | None = None,
    outlined: str = "",
    workers: int | None = None,
) -> Iterator[Answered | DoctogresError]:
    """Yields the answer to every slide, in order, or the error that says why there is none.

    A slide without a mask is classified by its tissue, as the served model does. The other arguments are those of `Answering`.
    """
    passed: deque[Slide] = deque()

    def noted() -> Iterator[Slide]:
        for slide in slides:
            passed.append(slide)
            yield slide

    def cut(slide: Slide) -> CutSlide | DoctogresError:
        if slide.outcome == DROPPED and not lacks_mask(slide):
            return CohortError(slide.reason)
        try:
            picture, mask, note = pixels_of(root, slide)
            return classifier.cut(picture.unless_known(mpp), mask, note)
        except DoctogresError as error:
            return error

    for answer in classifier.answers(map_slides(cut, noted(), workers=workers)):
        slide = passed.popleft()
        if not isinstance(answer, SlideAnswer):
            yield answer
            continue
        text = ""
        if outlined:
            pixels = pixels_of(root, slide)[:2]
            text = outlined_answer(slide.slide_id, answer, pixels, classifier.card.classes, model=outlined)
        yield Answered(answer, text)


def lacks_mask(slide: Slide) -> bool:
    """Whether the only thing wrong with a slide is that it has no mask."""
    return Reason.of(slide.reason) == Reason.MISSING_MASK


def pixels_of(root: Path, slide: Slide) -> tuple[SlideSource, npt.NDArray[np.bool_] | None, str]:
    """The picture, the mask, (height, width), None if the slide has none, and a note on the two."""
    if slide.image is not None and lacks_mask(slide):
        return open_slide(root / slide.image, name=slide.image), None, ""
    return read_slide(root, slide)
