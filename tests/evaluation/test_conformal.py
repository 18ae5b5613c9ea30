"""Limits that hold for slides of new patients."""

import math

import numpy as np
import pytest

from doctogres.evaluation.conformal import group_quantile, novelty_limit

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
