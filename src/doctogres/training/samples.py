"""What training needs to know of patches, row for row."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from doctogres.evaluation.metrics import macro_f1
from doctogres.model.aggregation import aggregate_slides


@dataclass(frozen=True)
class Samples:
    """Patches with what training needs to know of each, row for row."""

    pixels: npt.NDArray[np.uint8]  # (patches, size, size, 3), memory-mapped or not
    targets: npt.NDArray[np.int64]  # (patches,) class index
    slide_ids: npt.NDArray[np.str_]  # (patches,)
    areas: npt.NDArray[np.float64]  # (patches,) pixels
    pixels_key: str = ""  # names the pixels' content, where it is known


def class_weights(targets: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.float32]:
    """Weights of the cross-entropy, inverse to the class's share of the patches (or slides) that are trained on: (classes,).

    Their mean over these is 1; a class without any weighs nothing.
    """
    counts = np.bincount(targets, minlength=classes)
    with np.errstate(divide="ignore"):
        weights = np.where(counts > 0, len(targets) / (np.count_nonzero(counts) * counts), 0.0)
    return weights.astype(np.float32)


def slide_scores(
    samples: Samples, rows: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], classes: int
) -> tuple[float, npt.NDArray[np.int64]]:
    """Slide-level macro-F1 of patch probabilities (mean over the slide's patches), and each slide's predicted class."""
    slides, means = aggregate_slides(
        samples.slide_ids[rows].tolist(), probabilities, samples.areas[rows], method="mean"
    )
    truth_of = dict(zip(samples.slide_ids[rows].tolist(), samples.targets[rows].tolist(), strict=True))
    truth = np.array([truth_of[slide] for slide in slides])
    predicted = means.argmax(1)
    return macro_f1(truth, predicted, classes), predicted
