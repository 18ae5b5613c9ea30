"""The distance of a patch from the training patches, from a Gaussian of a network's features before the classifier. Loads no torch."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt


def rooted(features: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Signed square roots, (patches, features): pooled activations have heavy tails, for which a Gaussian has no place.

    Perronnin, Sanchez and Mensink, Improving the Fisher kernel for large-scale image classification, ECCV 2010.
    """
    return np.asarray(np.sign(features) * np.sqrt(np.abs(features)), np.float64)


@dataclass(frozen=True)
class Gaussian:
    """What `novelty.FeatureGaussian` holds, as arrays."""

    NAMES: ClassVar = ("mean", "axes", "variances", "rest")

    mean: npt.NDArray[Any]  # (features,)
    axes: npt.NDArray[Any]  # (features, axes), orthonormal; unused columns are zero
    variances: npt.NDArray[Any]  # (axes,)
    rest: npt.NDArray[Any]  # (1,), variance along any other axis

    def log_distances(self, features: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Logarithm of the squared Mahalanobis distance, (patches, features) -> (patches,)."""
        mean, axes, variances, rest = (getattr(self, name).astype(np.float64) for name in self.NAMES)
        centred = rooted(features) - mean
        along = centred @ axes
        aside = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        return np.asarray(np.log((along**2 / variances).sum(axis=1) + aside / rest + np.finfo(float).tiny))
