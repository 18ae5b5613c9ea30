"""How far a patch is from the training patches, measured on a network's features before the classifier."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

AXES: Final = 32  # with more, the distances of a few hundred patches are those of their noise


def rooted(features: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Signed square roots, (patches, features): pooled activations have heavy tails, for which a Gaussian has no place.

    Perronnin, Sanchez and Mensink, Improving the Fisher kernel for large-scale image classification, ECCV 2010.
    """
    return np.asarray(np.sign(features) * np.sqrt(np.abs(features)), np.float64)


class FeatureGaussian(nn.Module):
    """A Gaussian of the training patches' rooted features: a variance for each principal axis, and one for all the others.

    This is probabilistic principal component analysis (Tipping and Bishop, 1999): a few hundred patches determine a few
    axes, but no full covariance. The distance is Mahalanobis' (Lee et al., A simple unified framework for detecting
    out-of-distribution samples, NeurIPS 2018), here of all classes together.

    Args:
        features: number of features per patch.
    """

    mean: torch.Tensor  # (features,)
    axes: torch.Tensor  # (features, axes), orthonormal; unused columns are zero
    variances: torch.Tensor  # (axes,)
    rest: torch.Tensor  # variance along any other axis

    def __init__(self, features: int):
        super().__init__()
        axes = max(1, min(AXES, features - 1))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("axes", torch.zeros(features, axes))
        self.register_buffer("variances", torch.ones(axes))
        self.register_buffer("rest", torch.ones(1))

    def log_distances(self, features: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Logarithm of the squared Mahalanobis distance, (patches, features) -> (patches,)."""
        mean, axes, variances, rest = (value.cpu().double().numpy() for value in self.buffers())
        centred = rooted(features) - mean
        along = centred @ axes
        aside = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        return np.asarray(np.log((along**2 / variances).sum(axis=1) + aside / rest + np.finfo(float).tiny))
