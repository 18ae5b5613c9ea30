"""From what the networks say of slides to their answers: label, probabilities, novelty, and why the model is not sure."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.model.answer import CutSlide, SlideAnswer
from doctogres.model.card import ClassifierCard
from doctogres.model.fusion import ViewOutputs, slide_distances, slide_probabilities
from doctogres.model.temperature import apply_temperature
from doctogres.patches.regions import REGION_FIELDS
from doctogres.patches.views import WHOLE
from doctogres.slides.reasons import Reason


def slide_answers(
    card: ClassifierCard, slides: Sequence[CutSlide], views: Sequence[ViewOutputs], *, adjusted: bool
) -> Iterator[SlideAnswer]:
    """Yields the answer for each slide.

    Args:
        card: of the model.
        slides: cut into patches.
        views: what the networks say of them, in the order of the card's views.
        adjusted: the model is used with other settings than its own.
    """
    raw, first = slide_probabilities(views, card.answer), views[0]
    of_patches = first.patches(fusion=card.answer.fusion)
    probabilities = apply_temperature(raw, card.calibration.temperature)
    held = card.labels.holding(probabilities) if card.labels else np.zeros(raw.shape, np.bool_)
    order = np.argsort(-probabilities, axis=1, kind="stable")
    novelties = card.novelty.novelty(slide_distances(views)).tolist() if card.novelty else [None] * len(slides)
    of_patch = card.novelty.novelty(first.distances()) if card.novelty else np.full(len(of_patches), None)
    for number, slide in enumerate(slides):
        patches, confidence = first.slides[number], float(probabilities[number].max())
        unlike = _unlike_training(novelties[number])
        yield SlideAnswer(
            label=card.classes[int(probabilities[number].argmax())],
            probabilities=probabilities[number],
            raw=raw[number],
            confidence=confidence,
            reasons=tuple(filter(None, [slide.doubt, unlike, card.calibration.low_confidence(confidence)])),
            patches=_patch_table(card, slide.regions, of_patches[patches], of_patch[patches]),
            patch_probabilities=of_patches[patches],
            dropped=slide.dropped,
            mask_source=slide.mask_source,
            warnings=slide.warnings,
            labels=tuple(card.classes[place] for place in order[number] if held[number, place]),
            labels_valid=not (adjusted or slide.doubt or unlike or _of_tiles(slide, card)) and card.labels is not None,
            novelty=novelties[number],
        )


def _of_tiles(slide: CutSlide, card: ClassifierCard) -> bool:
    """Whether tiles of the tissue were classified, which the model was not trained on."""
    return slide.mask_source == "tissue" and card.views != (WHOLE,)


def _patch_table(
    card: ClassifierCard,
    regions: npt.NDArray[np.int64],
    probabilities: npt.NDArray[np.float64],
    novelty: npt.NDArray[Any],
) -> pd.DataFrame:
    labels = [card.classes[index] for index in probabilities.argmax(1)]
    return pd.DataFrame(regions, columns=list(REGION_FIELDS)).assign(label=labels, novelty=novelty)


def _unlike_training(novelty: float | None) -> str:
    """The reason why a model is not sure of a slide of this novelty; empty if it is like the training slides."""
    if novelty is None or novelty <= 1:
        return ""
    return Reason.NOVEL.because(novelty=novelty)  # also of a distance that is no number
