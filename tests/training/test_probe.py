"""Heads fitted to features: what they are, and that the network with such a head says what the fit said."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from doctogres.errors import ParameterError
from doctogres.model.fusion import softmax
from doctogres.model.network import create_network
from doctogres.settings import TrainSettings
from doctogres.training.probe import HeadRows, LinearHead, _logistic, fit_head

HEADS = [{"head": "logistic", "logistic_c": 0.1}, {"head": "lda", "lda_shrinkage": 0.3}, {"head": "blend"}]

KINDS: tuple[Any, ...] = ("logistic", "lda", "blend")


def drawn(rows: int, width: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features with a class's own mean; the first class is the most frequent one."""
    rng = np.random.default_rng(seed)
    targets = np.where(np.arange(rows) < rows // 2, 0, np.arange(rows) % classes)
    means = rng.normal(0, 1, (classes, width))
    return (rng.normal(3, 2, (rows, width)) + means[targets]) * rng.uniform(0.1, 9, width), targets


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(("rows", "width"), [(60, 200), (200, 20)])
def test_the_logistic_head_is_scikit_learns_on_standardised_features(rows: int, width: int, classes: int) -> None:
    features, targets = drawn(rows, width, classes)
    scaler = StandardScaler().fit(features)
    expected = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-9, max_iter=10_000).fit(
        scaler.transform(features), targets
    )
    head = bare(features, targets, classes, TrainSettings(logistic_c=0.1))
    other, _ = drawn(50, width, classes, seed=1)
    found = softmax(head.logits(other))
    np.testing.assert_allclose(found, expected.predict_proba(scaler.transform(other)), atol=2e-3)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(("rows", "width"), [(60, 200), (300, 20)])
def test_the_lda_head_is_scikit_learns_on_standardised_features(rows: int, width: int, classes: int) -> None:
    features, targets = drawn(rows, width, classes)
    scaler = StandardScaler().fit(features)
    expected = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3, priors=[1 / classes] * classes)
    expected.fit(scaler.transform(features), targets)
    head = bare(features, targets, classes, TrainSettings(head="lda", lda_shrinkage=0.3))
    other, _ = drawn(50, width, classes, seed=1)
    np.testing.assert_allclose(softmax(head.logits(other)), expected.predict_proba(scaler.transform(other)), atol=1e-5)


@pytest.mark.parametrize("settings", [{"head": "logistic", "logistic_c": 1e-4}, {"head": "lda", "lda_shrinkage": 0.05}])
def test_the_temperature_is_honest_on_rows_of_other_groups(settings: dict[str, Any]) -> None:
    features, targets = (values[600:] for values in drawn(1200, 120, 3))  # where all classes are equally frequent
    features += np.random.default_rng(0).normal(0, 12, features.shape)  # few can be right
    fitted = np.arange(600) % 4 == 0
    given = features[fitted], targets[fitted], 3, TrainSettings(**settings)
    head, raw = fitted_to(*given), bare(*given)
    others, truth = features[~fitted], targets[~fitted]

    def gap(logits: np.ndarray) -> float:
        return float(softmax(logits).max(axis=1).mean() - (logits.argmax(axis=1) == truth).mean())

    assert (head.logits(others).argmax(1) == raw.logits(others).argmax(1)).all()
    assert abs(gap(head.logits(others))) < 0.08
    assert abs(gap(raw.logits(others))) > 0.12


def bare(features: np.ndarray, targets: np.ndarray, classes: int, settings: TrainSettings) -> LinearHead:
    """The head without its temperature."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("doctogres.training.probe._temperature", lambda *given: 1.0)
        return fitted_to(features, targets, classes, settings)


def fitted_to(features: np.ndarray, targets: np.ndarray, classes: int, settings: TrainSettings) -> LinearHead:
    return fit_head(rows_of(features, targets), classes, settings)


def rows_of(features: np.ndarray, targets: np.ndarray) -> HeadRows:
    """Three rows of each patient."""
    return HeadRows.equal(features, targets, [f"case {row // 3}" for row in range(len(features))])


@pytest.mark.parametrize("settings", HEADS)
def test_a_rotation_or_a_scale_of_the_features_changes_nothing(settings: dict[str, Any]) -> None:
    features, targets = drawn(60, 100, 3)
    recipe = TrainSettings(**settings)
    scaled = features * np.random.default_rng(2).uniform(0.5, 50, features.shape[1])
    first, second = (
        fitted_to(features, targets, 3, recipe),
        fitted_to(scaled, targets, 3, recipe),
    )
    np.testing.assert_allclose(softmax(first.logits(features)), softmax(second.logits(scaled)), atol=1e-4)


@pytest.mark.parametrize("settings", HEADS)
def test_classes_count_the_same_however_frequent(settings: dict[str, Any]) -> None:
    features, targets = drawn(400, 8, 3)
    features = np.random.default_rng(0).normal(size=features.shape)  # nothing to learn: only the shares could speak
    probabilities = softmax(fitted_to(features, targets, 3, TrainSettings(**settings)).logits(features))
    np.testing.assert_allclose(probabilities.mean(axis=0), 1 / 3, atol=0.05)


@pytest.mark.parametrize("settings", HEADS)
def test_a_class_without_patches_gets_nothing_and_constant_features_do_no_harm(settings: dict[str, Any]) -> None:
    features, targets = drawn(80, 12, 3)
    features[:, 4] = 7.0
    head = fitted_to(features, np.where(targets == 1, 2, targets), 3, TrainSettings(**settings))
    probabilities = softmax(head.logits(features))
    assert np.isfinite(probabilities).all()
    assert probabilities[:, 1].max() < 1e-6
    alone = softmax(fitted_to(features, np.full(80, 2), 3, TrainSettings(**settings)).logits(features))
    np.testing.assert_allclose(alone, np.tile([0, 0, 1], (80, 1)), atol=1e-6)


def test_a_blend_is_the_mean_of_both_heads() -> None:
    features, targets = drawn(60, 30, 3)
    both = {"logistic_c": 0.01, "lda_shrinkage": 0.7}
    logistic, lda, blend = (fitted_to(features, targets, 3, TrainSettings(head=head, **both)) for head in KINDS)
    expected = (logistic.logits(features) + lda.logits(features)) / 2
    np.testing.assert_allclose(blend.logits(features), expected)
    assert not np.allclose(logistic.logits(features), lda.logits(features))


def test_a_row_that_counts_twice_is_as_good_as_two_rows() -> None:
    features, targets = drawn(60, 8, 3)
    once = rows_of(features, targets)
    twice = np.repeat(np.arange(60), np.where(np.arange(60) < 20, 2, 1))
    weights = np.where(np.arange(60) < 20, 2.0, 1.0)
    weighted = replace(once, weights=weights)
    repeated = HeadRows.equal(features[twice], targets[twice], once.groups[twice])
    np.testing.assert_allclose(weighted.balanced.sum(), 80)
    for rows in (weighted, repeated):
        share = [rows.balanced[rows.targets == kind].sum() for kind in range(3)]
        np.testing.assert_allclose(share, share[0], rtol=1e-6)
    # On features that are standardised alike, the fits are the same.
    one, other = (_logistic(rows, c=0.1) for rows in (weighted, repeated))
    np.testing.assert_allclose(one.logits(features), other.logits(features), atol=1e-2)


def test_the_parts_of_a_head_on_joined_features_add_up_to_it() -> None:
    features, targets = drawn(60, 30, 3)
    head = fitted_to(features, targets, 3, TrainSettings())
    first, second = head.split([10, 20])
    summed = first.logits(features[:, :10]) + second.logits(features[:, 10:])
    np.testing.assert_allclose(summed, head.logits(features))


@pytest.mark.parametrize("backbone", ["test_resnet", "test_convnext", "test_vit", "test_efficientnet"])
def test_a_network_with_a_fitted_head_says_what_the_head_says(backbone: str) -> None:
    torch.manual_seed(0)
    network: Any = create_network(backbone, classes=3, size=32).eval()
    pixels = torch.randn(40, 3, 32, 32)
    with torch.inference_mode():
        features = network.forward_head(network.forward_features(pixels), pre_logits=True).flatten(1).numpy()
    head = fitted_to(features, np.arange(40) % 3, 3, TrainSettings())
    head.put_into(network, backbone)
    with torch.inference_mode():
        np.testing.assert_allclose(network(pixels).numpy(), head.logits(features), rtol=1e-3, atol=1e-4)


def test_a_network_without_a_linear_classifier_is_refused() -> None:
    network = create_network("test_resnet", classes=3, size=32)
    with pytest.raises(ParameterError, match="backbone=mine: its classifier is not one linear layer"):
        LinearHead(np.zeros((3, 7)), np.zeros(3)).put_into(network, "mine")
