"""Patches with the labels, slides and areas that training needs, row for row."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from doctogres.evaluation.metrics import macro_f1
from doctogres.model.aggregation import aggregate_slides
from doctogres.patches.joined import JoinedPixels


@dataclass(frozen=True)
class Samples:
    """Patches with the labels, slides and areas that training needs, row for row."""

    pixels: JoinedPixels | npt.NDArray[np.uint8]  # (patches, size, size, 3)
    targets: npt.NDArray[np.int64]  # (patches,) class index
    slide_ids: npt.NDArray[np.str_]  # (patches,)
    areas: npt.NDArray[np.float64]  # (patches,) pixels
    pixels_key: str = ""  # digest of the pixels' content, if known


def class_weights(
    targets: npt.NDArray[np.int64], classes: int, weights: npt.NDArray[np.float64] | None = None
) -> npt.NDArray[np.float32]:
    """Cross-entropy weights, inverse to each class's share of the training patches (or slides): (classes,).

    Their mean over the patches is 1; a class without patches has weight 0.

    Args:
        targets: (rows,) class of each patch or slide.
        classes: number of classes.
        weights: (rows,) how much each row counts; the same if not given.
    """
    counts = np.bincount(targets, weights, minlength=classes)
    with np.errstate(divide="ignore"):
        of_classes = np.where(counts > 0, counts.sum() / (np.count_nonzero(counts) * counts), 0.0)
    return of_classes.astype(np.float32)


def slide_scores(
    samples: Samples, rows: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], classes: int
) -> tuple[float, npt.NDArray[np.int64]]:
    """Slide-level macro-F1 from patch probabilities (mean over each slide's patches), and each slide's predicted class."""
    slides, means = aggregate_slides(
        samples.slide_ids[rows].tolist(), probabilities, samples.areas[rows], method="mean"
    )
    truth_of = dict(zip(samples.slide_ids[rows].tolist(), samples.targets[rows].tolist(), strict=True))
    truth = np.array([truth_of[slide] for slide in slides])
    predicted = means.argmax(1)
    return macro_f1(truth, predicted, classes), predicted
