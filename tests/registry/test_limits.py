"""The limits of the gate: what keeps a model from becoming champion, and that the reason has both numbers."""

import math

import pytest

from doctogres.evaluation.bootstrap import Estimate
from doctogres.registry.gate import GateDecision, held
from doctogres.registry.limits import Measured, recalls, violations
from doctogres.settings import GateSettings

MEASURED = Measured(12.5, {"a": 0.5, "b": 0.9}, latency_ms=80.0, champion_latency_ms=40.0)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({}, []),
        ({"min_recall": 0.5, "max_model_mb": 12.5, "max_latency_ms": 80}, []),
        ({"min_recall": 0.51}, ["recall below min_recall=0.51: a 0.500"]),
        ({"min_recall": 0.95}, ["recall below min_recall=0.95: a 0.500, b 0.900"]),
        ({"max_model_mb": 12}, ["it has 12.5 MB, more than max_model_mb=12"]),
        (
            {"max_latency_ms": 79},
            ["one slide takes 80 ms (95th percentile, 2.00 times the champion's), more than max_latency_ms=79"],
        ),
    ],
)
def test_each_limit_names_both_numbers(limits: dict[str, float], words: list[str]) -> None:
    assert violations(MEASURED, GateSettings(**limits)) == words


def test_a_limit_turns_a_champion_into_a_challenger_and_nothing_else() -> None:
    champion = GateDecision("champion", "it scores as high")
    assert held(champion, ["too large", "too slow"]) == GateDecision(
        "challenger", "too large; too slow (otherwise champion: it scores as high)"
    )
    assert held(champion, []) == champion
    for other in (GateDecision("challenger", "worse"), GateDecision("", "no better than guessing")):
        assert held(other, ["too large"]) == other


def test_a_class_without_slides_has_no_recall() -> None:
    metrics = {"recall/a": Estimate(0.5, 0.4, 0.6), "recall/b": Estimate(math.nan, math.nan, math.nan)}
    assert recalls(metrics, ["a", "b", "c"]) == {"a": 0.5}


def test_the_ratio_is_recorded_with_both_latencies() -> None:
    assert MEASURED.metrics == {"model_mb": 12.5, "latency_ms": 80, "champion_latency_ms": 40, "latency_ratio": 2}
    assert Measured(1.0).metrics == {"model_mb": 1.0}
