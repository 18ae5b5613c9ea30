import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    roc_auc_score,
)

from doctogres.errors import ParameterError
from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.metrics import macro_f1, patch_metrics, slide_metrics
from doctogres.evaluation.null_models import null_metrics

CLASSES = ("Luminal B", "Luminal A", "HER2(+)", "Triple negative")  # not in alphabetical order, on purpose


def planted(slides: int, seed: int, signal: float = 1.5) -> tuple[list[str], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, len(CLASSES), slides)
    logits = rng.normal(size=(slides, len(CLASSES)))
    logits[np.arange(slides), truth] += signal
    odds = np.exp(logits)
    return [CLASSES[index] for index in truth], odds / odds.sum(axis=1, keepdims=True)


labels = st.integers(2, 6).flatmap(
    lambda k: st.tuples(
        st.just(k), st.lists(st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=1, max_size=60)
    )
)


@settings(deadline=None)
@given(labels)
def test_macro_f1_is_sklearns_over_the_classes_present(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    classes, pairs = drawn
    truth, predicted = np.array(pairs).T
    expected = f1_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0)
    assert macro_f1(truth, predicted, classes) == pytest.approx(expected)


def test_macro_f1_by_hand() -> None:
    # class 0: 2 of 3 found, 1 false: F1 2/3; class 1: 1 of 2 found, 1 false: 1/2; class 2 never there: left out
    truth, predicted = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 0])
    assert macro_f1(truth, predicted, 3) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_macro_f1_refuses_positions_outside_the_classes() -> None:
    with pytest.raises(ParameterError, match=r"0 \.\.\. 1"):
        macro_f1(np.array([0, 2]), np.array([0, 1]), 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(5, 80))
def test_every_value_is_sklearns(seed: int, slides: int) -> None:
    truth, rows = planted(slides, seed)
    found = slide_metrics(truth, rows, CLASSES, resamples=100)
    numbers = np.array([CLASSES.index(label) for label in truth])
    predicted, present = rows.argmax(axis=1), np.unique(numbers)
    assert found["accuracy"].value == pytest.approx(accuracy_score(numbers, predicted))
    assert found["macro_f1"].value == pytest.approx(f1_score(numbers, predicted, labels=present, average="macro"))
    recall = recall_score(numbers, predicted, labels=present, average="macro")
    assert found["balanced_accuracy"].value == pytest.approx(recall)
    assert found["log_loss"].value == pytest.approx(log_loss(numbers, rows, labels=range(4)))
    assert found["brier"].value == pytest.approx(brier_score_loss(numbers, rows, labels=range(4), scale_by_half=False))
    areas = [roc_auc_score(numbers == one, rows[:, one]) for one in present if len(present) > 1]
    if areas:
        assert found["macro_auroc"].value == pytest.approx(np.mean(areas))
    for one in present:
        name, scores = CLASSES[one], {"labels": [one], "average": "macro", "zero_division": np.nan}
        assert found[f"recall/{name}"].value == pytest.approx(recall_score(numbers, predicted, **scores))
        precision = precision_score(numbers, predicted, **scores)
        assert found[f"precision/{name}"].value == pytest.approx(precision, nan_ok=True)


def test_tied_scores_count_half_in_the_auroc() -> None:
    rows = np.array([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1], [0.1, 0.9]])
    found = slide_metrics(["a", "b", "a", "b"], rows, ["a", "b"])
    assert found["macro_auroc"].value == pytest.approx(3.5 / 4)


def test_calibration_error_by_hand() -> None:
    # two slides at 0.95, one right: gap 0.45; two at 0.65, both right: gap 0.35
    rows = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.65, 0.35]])
    found = slide_metrics(["a", "b", "a", "a"], rows, ["a", "b"])
    assert found["ece"].value == pytest.approx(0.4)


def test_certainty_that_is_wrong_stays_finite() -> None:
    found = slide_metrics(["a", "b"], np.array([[0.0, 1.0], [1.0, 0.0]]), ["a", "b"])
    assert found["log_loss"].value == pytest.approx(-math.log(1e-15))
    assert found["ece"].value == pytest.approx(1.0)
    assert found["brier"].value == pytest.approx(2.0)


def test_a_class_that_no_slide_has_is_undefined_and_never_nan_in_json() -> None:
    rows = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.7, 0.2, 0.1]])
    found = slide_metrics(["a", "b", "a"], rows, ["a", "b", "never"])
    assert found["f1/never"].to_dict() == {"value": None, "low": None, "high": None}
    assert str(found["f1/never"]) == "undefined"
    assert found["macro_f1"].value == 1.0
    assert found["macro_auroc"].value == 1.0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_order_of_the_slides_changes_nothing(seed: int, grouped: bool) -> None:
    truth, rows = planted(40, seed)
    groups = [f"patient {index // 3}" for index in range(40)]
    order = np.random.default_rng(seed).permutation(40)
    here = slide_metrics(truth, rows, CLASSES, groups=groups if grouped else None, resamples=100)
    moved = [truth[index] for index in order]
    moved_groups = [groups[index] for index in order] if grouped else None
    there = slide_metrics(moved, rows[order], CLASSES, groups=moved_groups, resamples=100)
    for key, one in here.items():
        assert there[key].to_dict() == pytest.approx(one.to_dict()), key


def test_the_class_order_moves_the_columns_and_nothing_else() -> None:
    truth, rows = planted(60, 3)
    turned = slide_metrics(truth, rows[:, ::-1], CLASSES[::-1], resamples=100)
    for key, one in slide_metrics(truth, rows, CLASSES, resamples=100).items():
        assert turned[key].value == pytest.approx(one.value), key


def test_the_seed_decides_the_interval() -> None:
    truth, rows = planted(60, 3)
    first, again, other = (slide_metrics(truth, rows, CLASSES, seed=seed)["macro_f1"] for seed in (1, 1, 2))
    assert first == again
    assert first.value == other.value
    assert first != other


def test_every_value_lies_in_its_interval() -> None:
    truth, rows = planted(50, 8, signal=0.5)
    for key, one in {**slide_metrics(truth, rows, CLASSES), **null_metrics(truth, truth, CLASSES)}.items():
        assert one.low <= one.value <= one.high, key


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    # the truth: the same planted model on very many slides
    truth, rows = planted(60_000, 0)
    numbers = np.array([CLASSES.index(label) for label in truth])
    real_f1 = macro_f1(numbers, rows.argmax(axis=1), len(CLASSES))
    real_accuracy = float((numbers == rows.argmax(axis=1)).mean())
    hits = {"macro_f1": 0, "accuracy": 0}
    for seed in range(150):
        found = slide_metrics(*planted(100, seed + 1), CLASSES, resamples=200)
        hits["macro_f1"] += found["macro_f1"].low <= real_f1 <= found["macro_f1"].high
        hits["accuracy"] += found["accuracy"].low <= real_accuracy <= found["accuracy"].high
    assert hits["macro_f1"] / 150 >= 0.86
    assert 0.86 <= hits["accuracy"] / 150 <= 0.995


def test_copies_of_a_patients_slides_do_not_narrow_the_interval() -> None:
    truth, rows = planted(40, 5)
    alone = slide_metrics(truth, rows, CLASSES)["macro_f1"]
    many, stacked = truth * 9, np.tile(rows, (9, 1))
    patients = [f"p{index}" for index in range(40)] * 9
    grouped = slide_metrics(many, stacked, CLASSES, groups=patients)["macro_f1"]
    naive = slide_metrics(many, stacked, CLASSES)["macro_f1"]
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=0.15)
    assert naive.high - naive.low < 0.6 * (grouped.high - grouped.low)


def test_an_interval_by_patients_is_the_one_that_a_loop_over_repeated_slides_gives() -> None:
    truth, rows = planted(60, 7)
    patients = np.arange(60) // 3
    found = slide_metrics(truth, rows, CLASSES, groups=[f"p{index:02}" for index in patients])
    numbers, rng = np.array([CLASSES.index(label) for label in truth]), np.random.default_rng(0)
    draws = []
    for _ in range(2000):
        slides = np.concatenate([np.flatnonzero(patients == one) for one in rng.integers(0, 20, 20)])
        losses = -np.log(rows[slides, numbers[slides]])
        draws.append([macro_f1(numbers[slides], rows[slides].argmax(axis=1), 4), losses.mean()])
    lows, highs = np.percentile(draws, [2.5, 97.5], axis=0)
    for name, low, high in zip(("macro_f1", "log_loss"), lows, highs, strict=True):
        assert (found[name].low, found[name].high) == pytest.approx((low, high), abs=0.1 * (high - low)), name


def test_coverage_counts_the_slides_that_the_model_is_sure_of() -> None:
    rows = np.array([[0.9, 0.1], [0.3, 0.7], [0.6, 0.4], [0.45, 0.55]])
    sure = np.array([True, True, False, False])
    found = slide_metrics(["a", "a", "a", "b"], rows, ["a", "b"], sure=sure)
    assert found == slide_metrics(["b", "a", "a", "a"], rows[::-1], ["a", "b"], sure=sure[::-1])
    assert found["coverage"].value == 0.5
    assert found["answered_accuracy"].value == 0.5
    assert found["coverage"].low < 0.5 < found["coverage"].high
    assert found["accuracy"].value == 0.75
    everything = slide_metrics(["a", "a", "a", "b"], rows, ["a", "b"], sure=np.ones(4, bool))
    assert everything["coverage"] == Estimate(1.0, 1.0, 1.0)
    assert everything["answered_accuracy"] == everything["accuracy"]


def test_where_nothing_is_answered_no_accuracy_is_claimed() -> None:
    found = slide_metrics(["a", "b"], np.array([[0.9, 0.1], [0.9, 0.1]]), ["a", "b"], sure=np.zeros(2, bool))
    assert found["coverage"].value == 0
    assert found["answered_accuracy"].to_dict() == {"value": None, "low": None, "high": None}


def test_where_nothing_says_what_is_sure_there_is_no_coverage() -> None:
    assert "coverage" not in slide_metrics(*planted(9, 1), CLASSES, resamples=100)


def test_patches_are_measured_alike_and_witness_as_slides() -> None:
    truth, rows = planted(40, 5)
    slides = [f"slide {index}" for index in range(40)]
    patches = patch_metrics(truth * 9, np.tile(rows, (9, 1)), CLASSES, slides=slides * 9)
    alone = slide_metrics(truth, rows, CLASSES, groups=slides)
    assert set(patches) == {f"patch/{name}" for name in alone}
    for name, one in alone.items():
        assert patches[f"patch/{name}"].to_dict() == pytest.approx(one.to_dict()), name


def test_one_patient_gives_a_value_and_no_interval() -> None:
    truth, rows = planted(6, 5)
    found = slide_metrics(truth, rows, CLASSES, groups=["p"] * 6)
    assert found["accuracy"].to_dict()["low"] is None
    assert found["accuracy"].to_dict()["value"] is not None
    assert str(found["accuracy"]).endswith("[no interval]")


def test_many_slides_are_resampled_in_blocks() -> None:
    truth, rows = planted(30_000, 1)
    found = slide_metrics(truth, rows, CLASSES, resamples=100)["accuracy"]
    normal = 1.96 * math.sqrt(found.value * (1 - found.value) / 30_000)
    assert (found.high - found.low) / 2 == pytest.approx(normal, rel=0.35)


def test_the_majority_null_by_hand() -> None:
    # always "a": F1 of a is 2*3/(3+4), of b 0
    found = null_metrics(["a", "a", "a", "b"], ["a", "a", "b"], ["b", "a"])
    assert found["majority/macro_f1"].value == pytest.approx((6 / 7) / 2)


def test_the_majority_is_the_training_parts_not_the_evaluated_ones() -> None:
    found = null_metrics(["a"] * 9 + ["b"], ["b", "b", "a"], ["a", "b"])
    assert found["majority/macro_f1"].value == pytest.approx((2 / 11) / 2)


def test_chance_among_balanced_classes_is_near_one_in_k() -> None:
    truth = list(CLASSES) * 100
    chance = null_metrics(truth, truth, CLASSES)["chance/macro_f1"]
    assert chance.value == pytest.approx(0.25, abs=0.005)
    # one round of 400 guesses: accuracy 0.25 +- 1.96 * sqrt(0.25 * 0.75 / 400)
    assert chance.low == pytest.approx(0.25 - 0.042, abs=0.012)
    assert chance.high == pytest.approx(0.25 + 0.042, abs=0.012)


def test_chance_of_a_single_slide_is_the_share_of_its_class() -> None:
    chance = null_metrics(["a"], ["a", "b", "b", "b"], ["a", "b"], resamples=4000)["chance/macro_f1"]
    assert chance.value == pytest.approx(0.25, abs=0.03)
    assert chance.to_dict()["low"] is None


def test_a_model_that_knows_nothing_does_not_beat_chance() -> None:
    truth, rows = planted(200, 4, signal=0.0)
    chance = null_metrics(truth, truth, CLASSES)["chance/macro_f1"]
    assert slide_metrics(truth, rows, CLASSES)["macro_f1"].low < chance.high


@pytest.mark.parametrize(
    ("truth", "rows", "message"),
    [
        (["a", "c"], np.full((2, 2), 0.5), "'c'"),
        (["a"], np.full((2, 2), 0.5), r"1 slides, 2 classes"),
        (["a"], np.array([[np.nan, 1.0]]), "finite"),
        (["a"], np.array([[4.0, 2.0]]), "sum to one"),
        (["a"], np.array([[1.5, -0.5]]), "non-negative"),
        ([], np.empty((0, 2)), "no slides"),
    ],
)
def test_what_cannot_be_measured_is_refused(truth: list[str], rows: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        slide_metrics(truth, rows, ["a", "b"])


def test_an_estimate_reads_as_in_a_table() -> None:
    assert str(Estimate(0.6612, 0.4888, 0.7834)) == "0.661 [0.489, 0.783]"


def test_classes_and_groups_that_do_not_fit_are_refused() -> None:
    rows = np.full((2, 2), 0.5)
    with pytest.raises(ParameterError, match="distinct"):
        slide_metrics(["a", "a"], rows, ["a", "a"])
    with pytest.raises(ParameterError, match="2 slides, 3 groups"):
        slide_metrics(["a", "b"], rows, ["a", "b"], groups=["x", "y", "z"])


def test_the_calibration_error_by_hand_has_ten_bins() -> None:
    """Two neighbouring bins whose errors would cancel out in one, up to the very last."""
    sure = np.array([0.85, 0.85, 0.95, 0.95, 1.0, 0.62, 0.69])
    right = np.array([1, 1, 1, 0, 1, 0, 1], bool)
    rows = np.column_stack([sure, 1 - sure])
    found = slide_metrics(["a" if one else "b" for one in right], rows, ["a", "b"], resamples=10)["ece"]
    expected = abs(2 * 0.85 - 2) + abs(0.95 + 0.95 + 1.0 - 2) + abs(0.62 + 0.69 - 1)
    assert found.value == pytest.approx(expected / 7)


def test_the_order_of_the_slides_moves_no_interval_with_patients_either() -> None:
    truth, rows = planted(40, 2)
    patients = [f"p{index % 13}" for index in range(40)]
    order = np.random.default_rng(0).permutation(40)
    straight = slide_metrics(truth, rows, CLASSES, groups=patients, resamples=100)
    mixed = slide_metrics(
        [truth[index] for index in order],
        rows[order],
        CLASSES,
        groups=[patients[index] for index in order],
        resamples=100,
    )
    for name, one in straight.items():
        assert mixed[name].to_dict() == pytest.approx(one.to_dict(), nan_ok=True), name
