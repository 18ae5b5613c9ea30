"""The gate's decisions, and where the aliases end up."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctogres.evaluation.bootstrap import Estimate
from doctogres.registry.gate import ChampionComparison, GateDecision, gate, overruled
from doctogres.registry.versions import DESCRIPTION_LIMIT, _shortened
from doctogres.settings import GateSettings

NULLS = {"majority/macro_f1": Estimate(0.2, 0.1, 0.3), "chance/macro_f1": Estimate(0.25, 0.15, 0.4)}
GOOD = Estimate(0.6, 0.45, 0.7)
share = st.floats(0, 1)


def versus(value: float, low: float, high: float) -> ChampionComparison:
    return ChampionComparison("3", 40, Estimate(value, low, high), "")


def decision(
    macro_f1: Estimate, nulls: dict[str, Estimate], comparison: ChampionComparison | None, margin: float = 0.1
) -> GateDecision:
    return gate(macro_f1, nulls, comparison, settings=GateSettings(loss_margin=margin), split="hold-out")


@pytest.mark.parametrize(
    ("low", "passes"), [(0.26, True), (0.25, False), (0.22, False), (0.1, False), (math.nan, False)]
)
def test_a_version_is_made_only_above_both_null_models(low: float, passes: bool) -> None:
    decided = decision(Estimate(0.6, low, 0.7), NULLS, None)
    assert decided.alias == ("champion" if passes else "")
    assert "0.200" in decided.reason
    assert "0.250" in decided.reason


def test_an_undefined_null_model_is_not_beaten() -> None:
    nan = Estimate(math.nan, math.nan, math.nan)
    assert decision(GOOD, {**NULLS, "chance/macro_f1": nan}, None).alias == ""


@pytest.mark.parametrize(
    ("difference", "alias", "words"),
    [
        ((0.05, -0.02, 0.12), "champion", "at least as high"),
        ((0.0, 0.0, 0.0), "champion", "at least as high"),
        ((-1e-17, -0.05, 0.05), "champion", "at least as high"),
        ((0.05, -0.11, 0.2), "challenger", "a loss of more than 0.1 cannot be excluded"),
        ((-0.01, -0.05, 0.03), "challenger", "scores lower"),
        ((0.3, math.nan, math.nan), "challenger", "cannot be excluded"),
    ],
)
def test_the_champion_is_replaced_only_by_what_does_not_lose(
    difference: tuple[float, float, float], alias: str, words: str
) -> None:
    decided = decision(GOOD, NULLS, versus(*difference))
    assert decided.alias == alias
    assert words in decided.reason
    assert "version 3" in decided.reason


def test_where_the_champions_answers_came_from_is_said() -> None:
    contest = ChampionComparison("3", 40, Estimate(0.1, 0.0, 0.2), "champion re-evaluated")
    decided = decision(GOOD, NULLS, contest)
    assert "on the same 40 hold-out slides (champion re-evaluated): it scores at least as high" in decided.reason
    assert not decided.forced
    assert "()" not in decision(GOOD, NULLS, versus(0.1, 0.0, 0.2)).reason


def test_what_cannot_be_compared_is_a_challenger_that_says_why() -> None:
    decided = decision(GOOD, NULLS, ChampionComparison("3", 0, None, "the slides are gone"), margin=1)
    assert decided.alias == "challenger"
    assert "the slides are gone" in decided.reason


@given(value=st.floats(-1, 1), below=share, above=share, margin=share, wider=share)
def test_a_wider_margin_never_costs_a_champion(
    value: float, below: float, above: float, margin: float, wider: float
) -> None:
    contest = versus(value, value - below, value + above)
    strict = decision(GOOD, NULLS, contest, margin=margin).alias == "champion"
    assert strict == (round(value, 9) >= 0 and value - below >= -margin)
    assert not strict or decision(GOOD, NULLS, contest, margin=min(1, margin + wider)).alias == "champion"


def test_force_makes_a_champion_and_keeps_what_the_gate_says() -> None:
    forced = overruled(GateDecision("", "it is no better than chance"))
    assert (forced.alias, forced.forced) == ("champion", True)
    assert forced.reason == "promote=force (gate decision: not registered; it is no better than chance)"


def test_a_description_fits_the_registrys_column() -> None:
    short = _shortened("a card\n", "runs:/1/model_card.md")
    long = _shortened("a line of the card\n" * 1000, "runs:/1/model_card.md")
    assert short == "a card\n"
    assert len(long) <= DESCRIPTION_LIMIT
    assert long.endswith("runs:/1/model_card.md`.)")
    assert set(long.splitlines()[:-2]) == {"a line of the card"}
