"""Fits the Gaussian of the training patches' features, by which a model tells slides that are unlike the training's."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from doctogres.model.gaussian import rooted
from doctogres.model.novelty import FeatureGaussian

BLOCK: Final = 4096  # patches that are converted to double precision at a time
SMALLEST: Final = 1e-6  # of the mean variance: features that never vary would otherwise count infinitely


def fit_gaussian(features: npt.NDArray[Any]) -> FeatureGaussian:
    """The Gaussian of patches, given their features (patches, features).

    At most half as many axes as patches are used, so that something is left to estimate the remaining variance from.
    """
    gaussian = FeatureGaussian(features.shape[1])
    blocks = [features[start : start + BLOCK] for start in range(0, len(features), BLOCK)]
    mean = np.sum([rooted(block).sum(axis=0) for block in blocks], axis=0) / len(features)
    covariance = np.zeros((len(mean), len(mean)))
    for block in blocks:
        centred = rooted(block) - mean
        covariance += centred.T @ centred / len(features)
    variances, vectors = np.linalg.eigh(covariance)  # ascending
    used = min(gaussian.axes.shape[1], len(features) // 2)
    smallest = max(SMALLEST * variances.mean(), np.finfo(np.float32).tiny)
    rest = variances[: len(variances) - used].mean()
    with torch.no_grad():
        gaussian.mean.copy_(torch.from_numpy(mean))
        gaussian.rest.fill_(max(rest, smallest))
        if used:
            gaussian.axes[:, :used] = torch.from_numpy(vectors[:, -used:].copy())
            gaussian.variances[:used] = torch.from_numpy(variances[-used:].clip(smallest))
    return gaussian
