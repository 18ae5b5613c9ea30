"""What a model may cost, and what it must find in every class: limits that keep a model from becoming champion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from doctogres.evaluation.bootstrap import Estimate
from doctogres.settings import GateSettings


@dataclass(frozen=True)
class Measured:
    """What the limits are held against.

    Attributes:
        size_mb: of the model's files, in megabytes (10^6 bytes).
        recall: of every class on the slides that decide.
        latency_ms: 95th percentile of one slide; None if it was not measured.
        champion_latency_ms: of the champion on the same slides in the same minutes; None if there is none.
    """

    size_mb: float
    recall: Mapping[str, float] = field(default_factory=dict)
    latency_ms: float | None = None
    champion_latency_ms: float | None = None

    @property
    def latency_ratio(self) -> float | None:
        """The model's latency divided by the champion's."""
        if self.latency_ms is None or self.champion_latency_ms is None:
            return None
        return self.latency_ms / self.champion_latency_ms

    @property
    def metrics(self) -> dict[str, float]:
        """For the run; only what was measured."""
        values = {
            "model_mb": self.size_mb,
            "latency_ms": self.latency_ms,
            "champion_latency_ms": self.champion_latency_ms,
            "latency_ratio": self.latency_ratio,
        }
        return {name: value for name, value in values.items() if value is not None}


def recalls(metrics: Mapping[str, Estimate], classes: Sequence[str]) -> dict[str, float]:
    """The recall of every class that has slides."""
    values = {label: metrics[f"recall/{label}"].value for label in classes if f"recall/{label}" in metrics}
    return {label: value for label, value in values.items() if value == value}


def violations(measured: Measured, settings: GateSettings) -> list[str]:
    """The limits that a model does not keep, each with both numbers."""
    found = []
    if measured.latency_ms is not None and measured.latency_ms > settings.max_latency_ms > 0:
        ratio = f", {measured.latency_ratio:.2f} times the champion's" if measured.latency_ratio is not None else ""
        found.append(
            f"one slide takes {measured.latency_ms:.0f} ms (95th percentile{ratio}), more than max_latency_ms="
            f"{settings.max_latency_ms:g}"
        )
    if measured.size_mb > settings.max_model_mb > 0:
        found.append(f"it has {measured.size_mb:.1f} MB, more than max_model_mb={settings.max_model_mb:g}")
    low = {label: value for label, value in measured.recall.items() if round(value, 9) < settings.min_recall}
    if low:
        named = ", ".join(f"{label} {value:.3f}" for label, value in sorted(low.items(), key=lambda item: item[1]))
        found.append(f"recall below min_recall={settings.min_recall:g}: {named}")
    return found
