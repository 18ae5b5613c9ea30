"""Example slides for the report: the worst errors and the least confident predictions, with their key patches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from doctogres.cleaning.reading import read_slide
from doctogres.drawing import Pixels, overlay
from doctogres.evaluation.metrics import class_indices
from doctogres.evaluation.scoring import Scored
from doctogres.model.answer import SlideAnswer
from doctogres.model.classifier import SlideClassifier
from doctogres.patches.crops import cut_patches
from doctogres.patches.regions import REGION_FIELDS
from doctogres.report.gradcam import NoHeatMapError, ensemble_gradcam
from doctogres.slides.source import Picture, source_of

WRONG_SLIDES: Final = 8
UNSURE_SLIDES: Final = 4


@dataclass(frozen=True)
class ShownPatch:
    """A patch of the gallery."""

    row: int  # in the slide's table of patches
    label: str
    probability: float
    pixels: Pixels  # (size, size, 3)
    heat: NDArray[np.float32] | None  # (rows, columns) in 0..1; None if the network allows no heat map


@dataclass(frozen=True)
class ShownSlide:
    """A slide of the gallery."""

    slide_id: str
    truth: str
    answer: SlideAnswer
    size: tuple[int, int]  # width and height of the slide, in pixels
    picture: Pixels  # shrunk, with the lesions outlined
    patches: list[ShownPatch]  # the most confident first


@dataclass(frozen=True)
class GallerySection:
    """Slides that are shown for the same reason."""

    heading: str
    lead: str
    slides: list[ShownSlide]


def choose_slides(
    of_truth: NDArray[np.float64],
    confidence: NDArray[np.float64],
    correct: NDArray[np.bool_],
    *,
    wrong: int,
    unsure: int,
) -> tuple[list[int], list[int]]:
    """Returns the row numbers of the worst errors and of the least confident predictions; no slide is in both.

    Args:
        of_truth: (slides,) probability of the true class; among the errors, the lowest come first.
        confidence: (slides,) probability of the predicted class; among the other slides, the lowest come first.
        correct: (slides,) whether the prediction is correct.
        wrong: maximum number of errors.
        unsure: maximum number of other slides.
    """
    worst = [int(row) for row in np.argsort(of_truth, kind="stable") if not correct[row]][:wrong]
    others = [int(row) for row in np.argsort(confidence, kind="stable") if int(row) not in worst]
    return worst, others[:unsure]


def show_slide(
    classifier: SlideClassifier,
    picture: Picture,
    mask: NDArray[np.bool_],
    answer: SlideAnswer,
    *,
    slide_id: str,
    truth: str,
) -> ShownSlide:
    """Returns what the gallery shows of a slide: the image and its most confident patches.

    A patch's heat map is for its predicted class, on one scale for all patches of the slide, by the networks of the first
    view.

    Args:
        classifier: the classifier that gave the answer.
        picture: the slide.
        mask: (height, width).
        answer: the answer for this slide.
        slide_id: the slide's name.
        truth: the slide's label.
    """
    slide = source_of(picture)
    card, shares, source = classifier.card, answer.patch_probabilities, classifier.card.sources[0]
    rows = np.argsort(-shares.max(axis=1), kind="stable")[:PATCHES]
    pixels = cut_patches(slide, answer.patches[list(REGION_FIELDS)].to_numpy()[rows], card.patch, source.view)
    targets = shares[rows].argmax(axis=1)
    heat: list[NDArray[np.float32] | None]
    try:
        heat = list(
            ensemble_gradcam(
                classifier.networks[0], pixels, targets, mean=source.architecture.mean, std=source.architecture.std
            )
        )
    except NoHeatMapError:
        heat = [None] * len(rows)
    patches = [
        ShownPatch(int(row), card.classes[target], float(shares[row, target]), patch, heat_map)
        for row, target, patch, heat_map in zip(rows, targets, pixels, heat, strict=True)
    ]
    shown = overlay(slide.working, NO_BOXES, [], [], mask, slide.size)
    return ShownSlide(slide_id, truth, answer, slide.size, shown, patches)


def sections(scored: Scored, root: Path) -> list[GallerySection]:
    """The worst errors, and the least confident predictions among the other slides."""
    probabilities, truth = scored.probabilities, class_indices(scored.slides["label"].tolist(), scored.classes)
    wrong, unsure = choose_slides(
        probabilities[np.arange(len(truth)), truth],
        probabilities.max(axis=1),
        probabilities.argmax(axis=1) == truth,
        wrong=WRONG_SLIDES,
        unsure=UNSURE_SLIDES,
    )
    return [
        GallerySection(
            "Worst errors", "Misclassified, lowest probability of the true class first.", _shown(scored, wrong, root)
        ),
        GallerySection(
            "Least confident predictions",
            "Among the other slides, lowest confidence first.",
            _shown(scored, unsure, root),
        ),
    ]


def _shown(scored: Scored, rows: list[int], root: Path) -> list[ShownSlide]:
    def show(index: int) -> ShownSlide:
        row: Any = next(scored.slides.iloc[[index]].itertuples(index=False))
        picture, mask, _ = read_slide(root, row)
        answer = scored.answers[index]
        return show_slide(scored.classifier, picture, mask, answer, slide_id=row.slide_id, truth=row.label)

    return [show(index) for index in rows]


PATCHES: Final = 5
NO_BOXES: Final = np.empty((0, 4), np.int64)
