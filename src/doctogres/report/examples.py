"""The slides to look at: which ones, and their decisive patches with heat maps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from doctogres.drawing import Pixels, overlay
from doctogres.evaluation.metrics import class_indices
from doctogres.evaluation.scoring import Scored
from doctogres.model.answer import SlideAnswer
from doctogres.model.classifier import SlideClassifier
from doctogres.patches.manifest import read_slide
from doctogres.patches.regions import REGION_FIELDS, cut_patches
from doctogres.report.gradcam import NoHeatMapError, ensemble_gradcam

WRONG_SLIDES: Final = 8
UNSURE_SLIDES: Final = 4


@dataclass(frozen=True)
class ShownPatch:
    """A patch of the gallery."""

    row: int  # in the answer's table of patches
    label: str
    probability: float
    pixels: Pixels  # (size, size, 3)
    heat: NDArray[np.float32] | None  # (rows, columns) in 0..1, None where the network has no heat map


@dataclass(frozen=True)
class ShownSlide:
    """A slide of the gallery."""

    slide_id: str
    truth: str
    answer: SlideAnswer
    size: tuple[int, int]  # width and height of the slide, in pixels
    picture: Pixels  # shrunk, with the lesions outlined
    patches: list[ShownPatch]  # the surest first


@dataclass(frozen=True)
class GallerySection:
    """Slides that are shown for one reason."""

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
    """Returns row numbers of the most wrong and of the least sure slides; no slide is in both.

    Args:
        of_truth: (slides,) probability that the true class got; the lowest among the wrong slides come first.
        confidence: (slides,) probability of the answer; the lowest among the other slides come first.
        correct: (slides,) whether the answer is the truth.
        wrong: at most this many.
        unsure: at most this many.
    """
    worst = [int(row) for row in np.argsort(of_truth, kind="stable") if not correct[row]][:wrong]
    others = [int(row) for row in np.argsort(confidence, kind="stable") if int(row) not in worst]
    return worst, others[:unsure]


def show_slide(
    classifier: SlideClassifier, rgb: Pixels, mask: NDArray[np.bool_], answer: SlideAnswer, *, slide_id: str, truth: str
) -> ShownSlide:
    """Returns what the gallery shows of a slide: its picture and the patches that the networks were surest of.

    A patch's heat map is of the class that the patch was given, on one scale for all patches of the slide.

    Args:
        classifier: the one that answered.
        rgb: (height, width, 3).
        mask: (height, width).
        answer: for this slide.
        slide_id: of the slide.
        truth: its label.
    """
    card, shares = classifier.card, answer.patch_probabilities
    rows = np.argsort(-shares.max(axis=1), kind="stable")[:PATCHES]
    pixels = cut_patches(rgb, answer.patches[list(REGION_FIELDS)].to_numpy()[rows], card.patch)
    targets = shares[rows].argmax(axis=1)
    heat: list[NDArray[np.float32] | None]
    try:
        heat = list(ensemble_gradcam(classifier.network, pixels, targets, mean=card.mean, std=card.std))
    except NoHeatMapError:
        heat = [None] * len(rows)
    patches = [
        ShownPatch(int(row), card.classes[target], float(shares[row, target]), patch, one)
        for row, target, patch, one in zip(rows, targets, pixels, heat, strict=True)
    ]
    height, width = rgb.shape[:2]
    return ShownSlide(slide_id, truth, answer, (width, height), overlay(rgb, NO_BOXES, [], [], mask), patches)


def sections(scored: Scored, root: Path) -> list[GallerySection]:
    """The slides to look at: the most wrong ones, and the least sure of the others."""
    probabilities, truth = scored.probabilities, class_indices(scored.slides["label"].tolist(), scored.classes)
    wrong, unsure = choose_slides(
        probabilities[np.arange(len(truth)), truth],
        probabilities.max(axis=1),
        probabilities.argmax(axis=1) == truth,
        wrong=WRONG_SLIDES,
        unsure=UNSURE_SLIDES,
    )
    return [
        GallerySection("The most wrong", "The true class got the lowest probability.", _shown(scored, wrong, root)),
        GallerySection(
            "The least sure",
            "The highest probability is the lowest among the other slides.",
            _shown(scored, unsure, root),
        ),
    ]


def _shown(scored: Scored, rows: list[int], root: Path) -> list[ShownSlide]:
    def show(index: int) -> ShownSlide:
        row: Any = next(scored.slides.iloc[[index]].itertuples(index=False))
        rgb, mask = read_slide(root, row)
        answer = scored.answers[index]
        return show_slide(scored.classifier, rgb, mask, answer, slide_id=row.slide_id, truth=row.label)

    return [show(index) for index in rows]


PATCHES: Final = 5
NO_BOXES: Final = np.empty((0, 4), np.int64)
