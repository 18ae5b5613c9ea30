"""Intervals by the bootstrap."""

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from doctogres.evaluation.bootstrap import BLOCK_CELLS, Estimate, Statistics, bootstrap, percentile_estimate, resample


def slides_drawn(weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """How many of the slides are drawn at all: all of them as they are, fewer in nearly every resample."""
    return {"slides": (weights > 0).sum(axis=1).astype(float)}


def mean_of_units(values: NDArray[np.float64]) -> Statistics:
    return lambda weights: {"mean": weights @ values / weights.sum(axis=1)}


def test_an_interval_holds_its_value_even_where_resamples_miss_it() -> None:
    """A reader who finds 30 [15, 23] trusts neither number."""
    estimate = bootstrap(slides_drawn, np.arange(30), resamples=400)["slides"]
    assert estimate.low < estimate.high == estimate.value == 30
    below = percentile_estimate(-1.0, np.linspace(0, 1, 101))
    assert [below.low, below.high] == pytest.approx([-1.0, 0.975])


def test_the_interval_is_the_central_95_percent() -> None:
    estimate = percentile_estimate(0.5, np.linspace(0, 1, 1001))
    assert [estimate.low, estimate.high] == pytest.approx([0.025, 0.975])


def test_what_is_undefined_in_a_resample_does_not_count() -> None:
    draws = np.array([0.0, math.nan, 1.0, math.inf])
    assert percentile_estimate(0.5, draws) == percentile_estimate(0.5, np.array([0.0, 1.0]))
    assert math.isnan(percentile_estimate(0.5, np.array([math.nan])).low)


def test_two_units_are_enough_for_an_interval_and_one_is_not() -> None:
    two = bootstrap(mean_of_units(np.array([0.0, 1.0])), np.array([0, 0, 1, 1]), resamples=200)["mean"]
    assert (two.value, two.low, two.high) == (0.5, 0.0, 1.0)
    one = bootstrap(mean_of_units(np.array([0.5])), np.zeros(4, np.int64), resamples=200)["mean"]
    assert one.value == 0.5
    assert math.isnan(one.low)
    assert math.isnan(one.high)


def test_as_many_resamples_as_asked_for_however_many_fit_into_a_block() -> None:
    units = np.repeat(np.arange(2), BLOCK_CELLS // 8)  # blocks of four resamples
    draws = resample(lambda weights: {"first": weights[:, 0]}, units, resamples=10, seed=0)["first"]
    assert draws.shape == (10,)
    assert set(draws) <= {0.0, 1.0, 2.0}


def test_an_estimate_reads_back_from_json_and_says_what_is_undefined() -> None:
    for estimate in (Estimate(0.661, 0.489, 0.783), Estimate(0.5, math.nan, math.nan), Estimate(*[math.nan] * 3)):
        again = Estimate.from_dict(json.loads(json.dumps(estimate.to_dict(), allow_nan=False)))
        np.testing.assert_equal((again.value, again.low, again.high), (estimate.value, estimate.low, estimate.high))
    assert str(Estimate(0.661, 0.489, 0.783)) == "0.661 [0.489, 0.783]"
    assert str(Estimate(0.5, math.nan, 0.6)) == str(Estimate(0.5, 0.4, math.nan)) == "0.500 [no interval]"
    assert str(Estimate(math.nan, 0.0, 1.0)) == "undefined"


def test_every_unit_is_drawn_about_as_often_as_the_others() -> None:
    draws = resample(
        lambda weights: {str(unit): weights[:, unit] for unit in range(5)}, np.arange(5), resamples=4000, seed=0
    )
    for counts in draws.values():
        assert counts.mean() == pytest.approx(1, abs=0.06)
        assert counts.max() >= 4
    assert set(np.sum(list(draws.values()), axis=0)) == {5.0}
