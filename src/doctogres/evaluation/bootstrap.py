"""Intervals by the percentile bootstrap over slides, or over groups of slides."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

# What a statistic makes per resample and slide stays near 16 MB however many of both there are.
BLOCK_CELLS: Final = 2_000_000

# (resamples, units) weights -> {name: (resamples,) values}
Statistics = Callable[[NDArray[np.float64]], dict[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; NaN where the value or the interval is undefined."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """Returns `value`, `low` and `high` for JSON, which has no NaN: undefined is None."""
        fields = {"value": self.value, "low": self.low, "high": self.high}
        return {name: float(number) if math.isfinite(number) else None for name, number in fields.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, float | None]) -> "Estimate":
        """What `to_dict` made."""
        return cls(**{name: math.nan if number is None else number for name, number in fields.items()})

    def __str__(self) -> str:
        """Returns the value and its interval to three digits: "0.661 [0.489, 0.783]"."""
        if not math.isfinite(self.value):
            return "undefined"
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            return f"{self.value:.3f} [no interval]"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    statistics: Statistics, units: NDArray[np.int64], *, resamples: int = 2000, seed: int = 0
) -> dict[str, Estimate]:
    """Returns each statistic of the slides as they are, with its 95 % percentile interval.

    Units are drawn with replacement (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13): slides, or
    whole groups of them (the cluster bootstrap; Davison and Hinkley, Bootstrap Methods and their Application, 1997,
    section 3.8), because two slides of one patient are not two witnesses. The draw is not stratified by class, because
    the class counts of the next hold-out would vary as well.

    A resample is a row of weights (how often each unit was drawn), so that a statistic built from sums over each unit,
    such as a confusion matrix, comes for all resamples out of one matrix product.

    Resamples where a statistic is undefined are left out of its interval. An interval is widened where needed to hold
    its value: calibration error grows under resampling, and its plain interval can lie wholly above the value.
    With fewer than two units there is no interval: `low` and `high` are NaN.

    Args:
        statistics: maps weights (resamples, units) to a (resamples,) array per name; undefined is NaN.
        units: (slides,) the unit that each slide is drawn with, 0 ... units - 1.
        resamples: how many resamples to draw.
        seed: of the draw.
    """
    draws = resample(statistics, units, resamples=resamples, seed=seed)
    values = statistics(np.ones((1, int(units.max()) + 1)))
    return {name: percentile_estimate(float(value[0]), draws[name]) for name, value in values.items()}


def resample(
    statistics: Statistics, units: NDArray[np.int64], *, resamples: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Returns each statistic on each resample, (resamples,); empty if there are fewer than two units to draw from."""
    count = int(units.max()) + 1
    if count < 2:
        return {name: np.empty(0) for name in statistics(np.ones((1, count)))}
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_CELLS // len(units))
    blocks = [
        statistics(_unit_counts(rng, min(block, resamples - start), count)) for start in range(0, resamples, block)
    ]
    return {name: np.concatenate([part[name] for part in blocks]) for name in blocks[0]}


def percentile_estimate(value: float, draws: NDArray[np.float64]) -> Estimate:
    """Returns the value with the central 95 % of the draws that are defined, widened to hold the value."""
    defined = draws[np.isfinite(draws)]
    if not math.isfinite(value) or defined.size == 0:
        return Estimate(value, math.nan, math.nan)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Estimate(value, min(float(low), value), max(float(high), value))


def _unit_counts(rng: np.random.Generator, resamples: int, units: int) -> NDArray[np.float64]:
    """Returns (resamples, units): how often each unit is drawn when as many as there are are drawn with replacement."""
    drawn = rng.integers(0, units, size=(resamples, units)) + units * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * units)
    return counts.reshape(resamples, units).astype(np.float64)
