from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from doctogres.errors import ParameterError
from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.comparison import compare
from doctogres.evaluation.metrics import class_indices, macro_f1, slide_metrics

CLASSES = ("b", "a", "d", "c")


def planted(slides: int, seed: int, models: int = 2) -> tuple[list[str], list[NDArray[np.float64]]]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, len(CLASSES), slides)
    signal = 1.5 * np.eye(len(CLASSES))[truth]
    odds = np.exp(rng.normal(size=(models, slides, len(CLASSES))) + signal)
    return [CLASSES[index] for index in truth], list(odds / odds.sum(axis=2, keepdims=True))


def test_a_model_against_itself_differs_by_exactly_nothing() -> None:
    truth, (rows, _) = planted(50, 2)
    found = compare(truth, {"one": [rows], "same": [rows]}, CLASSES, against={"one": "same"})
    assert found.differences == {"one": Estimate(0.0, 0.0, 0.0)}
    assert found.values["one"] == found.values["same"]


def test_pairing_sees_what_two_separate_intervals_cannot() -> None:
    truth, (rows, _) = planted(300, 6)
    worse = rows.copy()
    worse[:12] = np.roll(np.eye(4)[class_indices(truth[:12], CLASSES)], 1, axis=1)  # twelve made wrong
    found = compare(truth, {"good": [rows], "bad": [worse]}, CLASSES, against={"good": "bad", "bad": "good"})
    assert found.values["good"].low < found.values["bad"].high
    assert found.differences["good"].low > 0
    assert found.differences["good"].value == pytest.approx(found.values["good"].value - found.values["bad"].value)
    turned = found.differences["bad"]
    assert (-turned.value, -turned.high, -turned.low) == pytest.approx(
        (found.differences["good"].value, found.differences["good"].low, found.differences["good"].high)
    )


def test_a_model_of_several_networks_scores_the_mean_of_theirs_and_not_their_ensembles() -> None:
    truth, networks = planted(80, 3, models=3)
    found = compare(truth, {"three": networks}, CLASSES, against={})
    numbers = class_indices(truth, CLASSES)
    alone = [macro_f1(numbers, rows.argmax(axis=1), 4) for rows in networks]
    assert found.values["three"].value == pytest.approx(np.mean(alone))
    assert found.spread["three"] == pytest.approx((min(alone), max(alone)))
    assert found.differences == {}


def test_one_network_scores_what_the_metrics_say() -> None:
    truth, (rows, _) = planted(80, 4)
    groups = [f"patient {index // 2}" for index in range(80)]
    found = compare(truth, {"one": [rows]}, CLASSES, against={}, groups=groups)
    assert found.values["one"] == slide_metrics(truth, rows, CLASSES, groups=groups)["macro_f1"]
    assert found.spread["one"] == (found.values["one"].value,) * 2


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_neither_the_order_of_the_slides_nor_of_the_models_changes_anything(seed: int, grouped: bool) -> None:
    truth, (one, two, three) = planted(40, seed, models=3)
    groups = [f"patient {index // 3}" for index in range(40)] if grouped else None
    order = np.random.default_rng(seed).permutation(40)
    here = compare(truth, {"x": [one, two], "y": [three]}, CLASSES, against={"x": "y"}, groups=groups, resamples=100)
    there = compare(
        [truth[index] for index in order],
        {"y": [three[order]], "x": [one[order], two[order]]},
        CLASSES,
        against={"x": "y"},
        groups=[groups[index] for index in order] if groups else None,
        resamples=100,
    )
    assert here == there


def test_one_patient_gives_differences_without_an_interval() -> None:
    truth, (one, two) = planted(20, 5)
    found = compare(truth, {"x": [one], "y": [two]}, CLASSES, against={"x": "y"}, groups=["p"] * 20)
    assert found.differences["x"].to_dict()["value"] is not None
    assert found.differences["x"].to_dict()["low"] is None


def patients(count: int, seed: int) -> tuple[list[str], list[NDArray[np.float64]], list[str]]:
    """Two models, the first one better, on patients with one to five slides that resemble each other for both."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(count), rng.integers(1, 6, count))
    truth = rng.integers(0, 4, count)[patient]
    look, *own = rng.normal(size=(3, count, 4))[:, patient]
    models = []
    for signal, reaction in zip((2.0, 1.5), own, strict=True):
        noise = look + 0.7 * reaction + 0.5 * rng.normal(size=look.shape)
        odds = np.exp(signal * np.eye(4)[truth] + noise)
        models.append(odds / odds.sum(axis=1, keepdims=True))
    return [CLASSES[index] for index in truth], models, [str(index) for index in patient]


def test_intervals_by_patients_cover_the_truth_about_as_often_as_they_say() -> None:
    truth, models, _ = patients(60_000, 0)
    numbers = class_indices(truth, CLASSES)
    better, worse = (macro_f1(numbers, rows.argmax(axis=1), 4) for rows in models)
    covered = {"value": 0, "difference": 0, "value by slides": 0, "difference by slides": 0}
    for seed in range(200):
        truth, (one, two), groups = patients(60, seed + 1)
        for suffix, units in (("", groups), (" by slides", None)):
            found = compare(truth, {"x": [one], "y": [two]}, CLASSES, against={"x": "y"}, groups=units, resamples=300)
            value, difference = found.values["x"], found.differences["x"]
            covered[f"value{suffix}"] += value.low <= better <= value.high
            covered[f"difference{suffix}"] += difference.low <= better - worse <= difference.high
    rates = {name: hits / 200 for name, hits in covered.items()}
    assert 0.89 <= rates["value"] <= 0.99
    assert 0.89 <= rates["difference"] <= 0.99
    assert rates["value by slides"] < 0.85
    assert rates["difference by slides"] < 0.89


@pytest.mark.parametrize(
    ("models", "against", "message"),
    [
        ({"x": [np.full((2, 2), 0.5)]}, {"x": "y"}, r"\['y'\]"),
        ({"x": [np.full((2, 2), 0.5)]}, {"z": "x"}, r"\['z'\]"),
        ({"x": []}, {}, r"\['x'\] have no predictions"),
        ({"x": [np.full((3, 2), 0.5)]}, {}, "2 slides, 2 classes"),
    ],
)
def test_what_cannot_be_compared_is_refused(models: dict[str, Any], against: dict[str, str], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        compare(["a", "b"], models, ["a", "b"], against=against)


def test_no_slides_are_refused() -> None:
    with pytest.raises(ParameterError, match="no slides"):
        compare([], {"x": [np.empty((0, 2))]}, ["a", "b"], against={})
