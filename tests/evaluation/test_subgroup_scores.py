"""Scores by site, scanner and age."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from doctogres.evaluation.metrics import slide_metrics
from doctogres.evaluation.subgroups import MISSING, MOST_VALUES, cut, smallest_subgroup, subgroup_scores

CLASSES = ["a", "b"]


@pytest.fixture
def scored() -> dict[str, Any]:
    """60 slides of 30 patients at the sites north (20 patients), south (8) and nowhere (2)."""
    random = np.random.default_rng(0)
    patient = np.repeat(np.arange(30), 2)
    site = np.where(patient < 20, "north", np.where(patient < 28, "south", ""))
    truth = random.choice(CLASSES, 60)
    odds = random.random((60, 2)) + 0.3 * (np.array(CLASSES) == truth[:, None])
    slides = pd.DataFrame({"label": truth, "group": [f"p{one}" for one in patient], "s_site": site})
    slides["s_id"] = range(60)
    slides["s_code"] = [f"c{number}" for number in range(60)]
    return {"slides": slides, "probabilities": odds / odds.sum(1, keepdims=True), "sure": random.random(60) < 0.7}


def test_each_has_the_scores_of_its_slides_with_whole_patients_resampled(scored: dict[str, Any]) -> None:
    found = subgroup_scores(columns=["s_site"], classes=CLASSES, resamples=200, seed=3, **scored)
    north = found[0]
    assert (north.column, north.value, north.slides, north.groups, north.classes) == ("site", "north", 40, 20, 2)
    rows = slice(0, 40)
    alone = slide_metrics(
        scored["slides"]["label"][rows].tolist(),
        scored["probabilities"][rows],
        CLASSES,
        groups=scored["slides"]["group"][rows].tolist(),
        sure=scored["sure"][rows],
        resamples=200,
        seed=3,
    )
    assert north.metrics == {name: alone[name] for name in ("macro_f1", "accuracy", "coverage")}
    assert north.metrics["accuracy"].low < north.metrics["accuracy"].value < north.metrics["accuracy"].high


def test_one_with_too_few_patients_says_so_and_the_smallest_is_named(scored: dict[str, Any]) -> None:
    _, south, nowhere = subgroup_scores(columns=["s_site"], classes=CLASSES, resamples=100, seed=0, **scored)
    assert (south.value, south.metrics, south.too_few) == ("south", {}, "too few groups (8, at least 10)")
    assert (nowhere.value, nowhere.groups) == (MISSING, 2)
    assert smallest_subgroup([south, nowhere]) == "The smallest subgroup is site south: 16 slides of 8 groups."
    assert smallest_subgroup([]) == ""


def test_a_column_that_is_another_name_is_no_subgroup(scored: dict[str, Any]) -> None:
    found = subgroup_scores(columns=["s_code", "s_id"], classes=CLASSES, resamples=100, seed=0, **scored)
    assert scored["slides"]["s_code"].nunique() > MOST_VALUES
    assert {one.column for one in found} == {"id"}  # numbers are cut into quarters
    assert [one.value for one in found] == ["0 to 14", "15 to 29", "30 to 44", "45 to 59"]
    grades = scored["slides"].assign(s_grade=["10"] * 30 + ["9"] * 20 + [""] * 10)
    found = subgroup_scores(**scored | {"slides": grades}, columns=["s_grade"], classes=CLASSES, resamples=100, seed=0)
    assert [one.value for one in found] == ["9", "10", MISSING]  # by number, not by size


def test_numbers_are_cut_at_their_quartiles() -> None:
    ages = pd.Series(["30", "41", "45", "50", "55", "61.5", "70", "80", ""])
    assert cut(ages).tolist() == ["30 to 41"] * 2 + ["45 to 50"] * 2 + ["55 to 61.5"] * 2 + ["70 to 80"] * 2 + [MISSING]
    assert cut(pd.Series(["1", "2", "3", "1"])).tolist() == ["1", "2", "3", "1"]  # grades
    mixed = pd.Series([*map(str, range(9)), "old"])
    assert cut(mixed).tolist() == mixed.tolist()
    assert cut(pd.Series([None, "x", np.nan], dtype=object)).tolist() == [MISSING, "x", MISSING]
    assert cut(pd.Series(["inf", *map(str, range(9))])).nunique() == 10
