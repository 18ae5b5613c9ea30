"""Limits that hold for slides of new patients."""

import math

import numpy as np
import pytest

from doctogres.evaluation.conformal import group_quantile, label_sets, mean_metrics, novelty_limit

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("slides", "level", "rank"), [(19, 0.95, 19), (99, 0.95, 95), (99, 0.99, 99), (47, 0.5, 24)])
def test_with_one_slide_per_patient_it_is_the_usual_conformal_rank(slides: int, level: float, rank: int) -> None:
    scores = RNG.permutation(slides).astype(float)
    assert group_quantile(scores, [f"patient {number}" for number in range(slides)], level) == rank - 1


def test_with_too_few_patients_there_is_none_and_the_limit_is_the_highest_distance() -> None:
    scores = RNG.uniform(1, 2, 100)
    patients = [str(number % 18) for number in range(100)]
    assert group_quantile(scores, patients, 0.95) == math.inf
    limit = novelty_limit(scores, patients, level=0.95)
    assert (limit.limit, limit.highest, limit.distances, limit.groups) == (scores.max(), True, 100, 18)
    assert limit.novelty(scores).max() == 1
    assert not novelty_limit(scores, [*patients[:-1], "another"], level=0.95).highest


def test_a_patient_with_many_slides_counts_as_one() -> None:
    scores = np.concatenate([np.arange(30.0), np.full(970, 1000.0)])
    patients = [*map(str, range(30)), *["thick"] * 970]
    assert group_quantile(scores, patients, 0.9) == 28
    assert np.quantile(scores, 0.9) == 1000


def test_a_slide_repeated_in_every_draw_changes_nothing() -> None:
    scores, patients = RNG.normal(size=60), [str(number % 40) for number in range(60)]
    once = group_quantile(scores, patients, 0.8)
    assert group_quantile(np.tile(scores, 3), patients * 3, 0.8) == once


def test_new_patients_stay_within_it_as_often_as_asked() -> None:
    """Patients differ more than their slides, and some have many: pooled slides would give a limit that is too low."""
    rng, level, within, pooled = np.random.default_rng(1), 0.9, [], []
    for _ in range(2000):
        sizes = rng.choice([1, 40], 30, p=[0.8, 0.2])
        centres = rng.normal(size=31) - np.r_[(sizes > 1) * 1.5, 0]  # large patients look alike and are easy
        scores = np.repeat(centres[:30], sizes) + 0.3 * rng.normal(size=sizes.sum())
        patients = np.repeat(np.arange(30), sizes).astype(str)
        new_size = rng.choice([1, 40], p=[0.8, 0.2])
        new = rng.normal() - (new_size > 1) * 1.5 + 0.3 * rng.normal()
        within.append(new <= group_quantile(scores, patients.tolist(), level))
        pooled.append(new <= np.quantile(scores, level))
    assert np.mean(within) >= level - 0.015
    assert np.mean(pooled) < level - 0.05


def answers(rng: np.random.Generator, slides: int, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Truth and probabilities that are too sure of themselves."""
    truth = rng.integers(0, classes, slides)
    logits = rng.normal(size=(slides, classes)) + 1.5 * np.eye(classes)[truth]
    odds = np.exp(2 * logits)
    return truth, odds / odds.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("target", [0.7, 0.9, 0.95])
def test_the_labels_hold_the_truth_of_new_slides_as_often_as_asked(target: float) -> None:
    rng, held, sizes, sure = np.random.default_rng(0), [], [], []
    for _ in range(300):
        patients = [str(number) for number in range(120)]
        sets = label_sets(*answers(rng, 120), patients, target=target)
        truth, probabilities = answers(rng, 50)
        labels = sets.holding(probabilities)
        assert labels[np.arange(50), probabilities.argmax(axis=1)].all()
        held.append(labels[np.arange(50), truth].mean())
        sizes.append(labels.sum(axis=1).mean())
        sure.append((probabilities.argmax(axis=1) == truth).mean())
    assert np.mean(sure) < target - 0.01  # the first label alone is not enough
    assert target - 0.01 <= np.mean(held) <= target + 0.03
    assert np.mean(sizes) < 4


def test_with_too_few_patients_every_label_is_held() -> None:
    truth, probabilities = answers(np.random.default_rng(1), 80)
    few = label_sets(truth, probabilities, [str(number % 8) for number in range(80)], target=0.9)
    assert (few.threshold, few.groups) == (0, 8)
    assert few.holding(probabilities).all()
    assert label_sets(truth, probabilities, [str(number % 9) for number in range(80)], target=0.9).threshold > 0


def test_means_have_intervals_over_patients() -> None:
    marked = np.repeat([True, False], 40)
    alone = mean_metrics({"novel": marked}, groups=[*map(str, range(80))])["novel"]
    patients = mean_metrics({"novel": marked}, groups=[str(number // 20) for number in range(80)])["novel"]
    assert alone.value == patients.value == 0.5
    assert 0.35 < alone.low < 0.5 < alone.high < 0.65
    assert (patients.low, patients.high) == (0, 1)
    assert mean_metrics({}, groups=["a", "b"]) == {}
