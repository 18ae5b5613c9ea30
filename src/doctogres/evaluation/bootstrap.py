"""Percentile bootstrap intervals over slides, or over groups of slides."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from doctogres.progress import counted

# Bounds the memory of one block of resamples to about 16 MB, however many slides and resamples there are.
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
        """Returns `value`, `low` and `high` for JSON, which has no NaN: undefined values are None."""
        fields = {"value": self.value, "low": self.low, "high": self.high}
        return {name: float(number) if math.isfinite(number) else None for name, number in fields.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, float | None]) -> "Estimate":
        """The estimate that `to_dict` wrote."""
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
    """Returns each statistic on the original slides, with its 95 % percentile interval.

    Units are drawn with replacement (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13): slides, or
    whole groups of them (the cluster bootstrap; Davison and Hinkley, Bootstrap Methods and their Application, 1997,
    section 3.8), because two slides of one patient are not independent. Draws are not stratified by class, because the
    class counts of another hold-out would vary as well.

    A resample is a row of weights (how often each unit was drawn), so that one matrix product computes a statistic that
    is built from per-unit sums, such as a confusion matrix, for all resamples.

    Resamples on which a statistic is undefined do not count towards its interval. An interval is widened if necessary
    to include its value: calibration error grows under resampling, and its plain interval can lie entirely above the
    value. With fewer than two units there is no interval: `low` and `high` are NaN.

    Args:
        statistics: maps weights (resamples, units) to a (resamples,) array per name; NaN where undefined.
        units: (slides,) the unit to which each slide belongs, 0 ... units - 1.
        resamples: number of resamples to draw.
        seed: of the random draws.
    """
    draws = resample(statistics, units, resamples=resamples, seed=seed)
    values = statistics(np.ones((1, int(units.max()) + 1)))
    return {name: percentile_estimate(float(value[0]), draws[name]) for name, value in values.items()}


def resample(
    statistics: Statistics, units: NDArray[np.int64], *, resamples: int, seed: int
) -> dict[str, NDArray[np.float64]]:
    """Returns each statistic on each resample, (resamples,); empty with fewer than two units to draw from."""
    count = int(units.max()) + 1
    if count < 2:
        return {name: np.empty(0) for name in statistics(np.ones((1, count)))}
    rng = np.random.default_rng(seed)
    block = max(1, BLOCK_CELLS // len(units))
    starts = range(0, resamples, block)
    blocks = [
        statistics(_unit_counts(rng, min(block, resamples - start), count))
        for start in counted(starts, "intervals", "blocks of resamples", len(starts))
    ]
    return {name: np.concatenate([part[name] for part in blocks]) for name in blocks[0]}


def percentile_estimate(value: float, draws: NDArray[np.float64]) -> Estimate:
    """Returns the value with the central 95 % of the defined draws, widened to include the value."""
    defined = draws[np.isfinite(draws)]
    if not math.isfinite(value) or defined.size == 0:
        return Estimate(value, math.nan, math.nan)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Estimate(value, min(float(low), value), max(float(high), value))


def _unit_counts(rng: np.random.Generator, resamples: int, units: int) -> NDArray[np.float64]:
    """Returns (resamples, units): how often each unit is drawn in `units` draws with replacement."""
    drawn = rng.integers(0, units, size=(resamples, units)) + units * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * units)
    return counts.reshape(resamples, units).astype(np.float64)
