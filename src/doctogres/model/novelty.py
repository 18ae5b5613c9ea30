"""How far a patch is from the training patches, measured on a network's features before the classifier."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from doctogres.model.gaussian import Gaussian

AXES: Final = 32  # with more, the distances of a few hundred patches are those of their noise


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
        return Gaussian(*(value.cpu().numpy() for value in self.buffers())).log_distances(features)
