"""The Gaussian of the training patches' features."""

import numpy as np
import pytest
import torch

from doctogres.model.gaussian import rooted
from doctogres.model.novelty import AXES, FeatureGaussian
from doctogres.training.gaussian import BLOCK, fit_gaussian


def features(rows: int, width: int, seed: int = 0) -> np.ndarray:
    """Correlated, skewed and never negative, like pooled activations."""
    rng = np.random.default_rng(seed)
    few = min(width, 8)
    mixed = rng.normal(size=(rows, few)) @ np.random.default_rng(9).normal(size=(few, width))
    mixed += 0.1 * rng.normal(size=mixed.shape)
    return np.asarray(np.maximum(mixed, 0) ** 2, np.float32)


def test_with_an_axis_for_every_feature_the_distance_is_that_of_mahalanobis() -> None:
    training, others = features(BLOCK + 300, 5), features(7, 5, seed=1)
    values = rooted(training)
    centred = rooted(others) - values.mean(axis=0)
    precision = np.linalg.inv(np.cov(values.T, bias=True))
    expected = np.einsum("pi,ij,pj->p", centred, precision, centred)
    np.testing.assert_allclose(np.exp(fit_gaussian(training).log_distances(others)), expected, rtol=1e-3)


def test_patches_of_the_same_kind_are_nearer_than_others_whatever_the_scale_of_the_network() -> None:
    for scale in (1e-3, 1, 1e3):
        gaussian = fit_gaussian(scale * features(200, 96))
        same, other = scale * features(50, 96, seed=1), scale * features(50, 96, seed=2)[:, ::-1]
        assert np.quantile(gaussian.log_distances(same), 0.9) < np.quantile(gaussian.log_distances(other), 0.1)


@pytest.mark.parametrize("rows", [1, 2, 3, 20])
def test_few_patches_and_features_that_never_vary_give_finite_distances(rows: int) -> None:
    training = features(rows, 96)
    training[:, 10:60] = 3
    gaussian = fit_gaussian(training)
    used = (gaussian.axes.abs().sum(dim=0) > 0).sum()
    assert used == min(AXES, rows // 2)
    assert np.isfinite(gaussian.log_distances(training)).all()
    assert np.isfinite(gaussian.log_distances(features(5, 96, seed=1))).all()


def test_the_shapes_depend_on_the_number_of_features_alone() -> None:
    fitted, empty = fit_gaussian(features(6, 40)), FeatureGaussian(40)
    empty.load_state_dict(fitted.state_dict())
    others = features(5, 40, seed=1)
    np.testing.assert_array_equal(empty.log_distances(others), fitted.log_distances(others))
    assert all(value.dtype == torch.float32 for value in fitted.buffers())
