import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from doctogres.errors import ParameterError
from doctogres.evaluation.calibration import calibrate, fit_temperature
from doctogres.model.temperature import Calibration, apply_temperature


def planted(slides: int, seed: int, temperature: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Truths drawn from the probabilities, which are then made over-confident: `temperature` sets them right again."""
    rng = np.random.default_rng(seed)
    honest = rng.dirichlet(np.full(4, 0.7), slides)
    truth = (rng.random((slides, 1)) < honest.cumsum(axis=1)).argmax(axis=1)
    sharp = honest**temperature
    return truth, sharp / sharp.sum(axis=1, keepdims=True)


def two_classes(confidence: list[float]) -> NDArray[np.float64]:
    top = np.array(confidence)
    return np.stack([top, 1 - top], axis=1)


@st.composite
def row_tables(draw: st.DrawFn) -> NDArray[np.float64]:
    """Rows with zeros, ties, and neighbours in floating point."""
    weights = st.sampled_from([0.0, 1e-300, 1e-16, 0.25, np.nextafter(0.25, 1), np.nextafter(0.25, 0), 0.5, 1.0])
    weights |= st.floats(0, 1)
    classes = draw(st.integers(2, 6))
    row = st.lists(weights, min_size=classes, max_size=classes).filter(lambda values: sum(values) > 1e-3)
    rows = np.array(draw(st.lists(row, min_size=1, max_size=8)))
    shares: NDArray[np.float64] = rows / rows.sum(axis=1, keepdims=True)
    return shares


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 4.0])
def test_the_planted_temperature_is_found(temperature: float) -> None:
    assert fit_temperature(*planted(20_000, 1, temperature)) == pytest.approx(temperature, rel=0.04)


def test_no_other_temperature_has_a_lower_smoothed_log_loss() -> None:
    truth, rows = planted(60, 2, 2.0)
    wanted = np.full(rows.shape, 1 / 62 / 3)  # Platt's targets: 61 of 62 for the truth
    wanted[np.arange(60), truth] = 61 / 62

    def loss(temperature: float) -> float:
        return float(-(wanted * np.log(apply_temperature(rows, temperature))).sum(axis=1).mean())

    best = fit_temperature(truth, rows)
    assert all(loss(best) <= loss(other) + 1e-12 for other in np.geomspace(0.05, 20, 200))


@pytest.mark.parametrize("slides", [1, 5, 20, 500])
def test_when_all_are_right_the_confidence_is_the_rule_of_succession(slides: int) -> None:
    rows = two_classes([0.65] * slides)
    scaled = apply_temperature(rows, fit_temperature(np.zeros(slides, np.int64), rows))
    assert scaled[:, 0] == pytest.approx((slides + 1) / (slides + 2))


def test_all_wrong_falls_to_the_upper_bound() -> None:
    assert fit_temperature(np.array([1]), np.array([[0.9, 0.1]])) == 20


def test_rows_that_say_nothing_leave_the_temperature_at_one() -> None:
    assert fit_temperature(np.array([0, 1, 2]), np.full((3, 3), 1 / 3)) == 1


def test_certainty_that_is_wrong_is_cooled_and_stays_finite() -> None:
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [0.9, 0.1]])
    temperature = fit_temperature(np.array([0, 1, 0]), rows)
    assert temperature == 20
    scaled = apply_temperature(rows, temperature)
    assert (scaled > 0).all()
    np.testing.assert_allclose(scaled.sum(axis=1), 1)


@settings(deadline=None)
@given(row_tables(), st.floats(0.05, 20))
def test_no_temperature_changes_the_order_of_the_classes(rows: NDArray[np.float64], temperature: float) -> None:
    scaled = apply_temperature(rows, temperature)
    np.testing.assert_allclose(scaled.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_array_equal(scaled == scaled.max(axis=1)[:, None], rows == rows.max(axis=1)[:, None])
    for before, after in zip(rows, scaled, strict=True):
        ranked = after[np.argsort(before, kind="stable")]
        assert (np.diff(ranked) >= -1e-15).all()
        for one in before:
            assert len(set(after[before == one])) == 1


@settings(deadline=None)
@given(row_tables(), st.floats(0.05, 20))
def test_a_slide_alone_gets_bit_for_bit_what_it_gets_in_company(rows: NDArray[np.float64], temperature: float) -> None:
    alone = [apply_temperature(row, temperature) for row in rows]
    assert np.array(alone).tobytes() == apply_temperature(rows, temperature).tobytes()


@settings(deadline=None)
@given(row_tables())
def test_a_temperature_of_one_changes_no_bit(rows: NDArray[np.float64]) -> None:
    assert apply_temperature(rows, 1.0).tobytes() == rows.tobytes()


def test_calibration_lowers_both_errors_on_slides_that_did_not_fit_it() -> None:
    truth, rows = planted(400, 3, 3.0)
    found = calibrate(truth, rows, target_precision=0.8)
    assert found.ece_before is not None
    assert found.ece_after is not None
    assert found.ece_after < found.ece_before / 2
    assert found.log_loss_before is not None
    assert found.log_loss_after is not None
    assert found.log_loss_after < found.log_loss_before


def test_what_is_reported_after_is_no_better_than_the_fit_itself() -> None:
    truth, rows = planted(30, 5, 2.0)
    found = calibrate(truth, rows, target_precision=0.8)
    flattering = apply_temperature(rows, found.temperature)[np.arange(30), truth]
    assert found.log_loss_after > -np.log(flattering).mean()


def test_a_groups_slides_do_not_judge_their_own_temperature() -> None:
    # two patients: each one's slides are judged with the temperature of the other's
    (first, one), (second, two) = planted(200, 6, 3.0), planted(200, 7, 0.5)
    truth, rows = np.r_[first, second], np.r_[one, two]
    found = calibrate(truth, rows, target_precision=0.8, groups=["a"] * 200 + ["b"] * 200)
    crossed = np.r_[
        apply_temperature(one, fit_temperature(second, two)), apply_temperature(two, fit_temperature(first, one))
    ]
    expected = -np.log(np.maximum(crossed[np.arange(400), truth], 1e-15)).mean()
    assert found.log_loss_after == pytest.approx(expected)


def test_one_patient_has_nothing_to_judge_by() -> None:
    truth, rows = planted(10, 8, 1.0)
    found = calibrate(truth, rows, target_precision=0.5, groups=["p"] * 10)
    assert found.ece_after is None
    assert found.log_loss_after is None
    assert found.ece_before is not None


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_order_of_the_slides_changes_nothing(seed: int, grouped: bool) -> None:
    truth, rows = planted(40, seed, 2.0)
    groups = [f"patient {index // 3}" for index in range(40)]
    order = np.random.default_rng(seed).permutation(40)
    here = calibrate(truth, rows, target_precision=0.7, groups=groups if grouped else None)
    moved = [groups[index] for index in order] if grouped else None
    assert here == calibrate(truth[order], rows[order], target_precision=0.7, groups=moved)


# right:  .95 yes, .9 yes, .8 no, .8 yes, .7 yes, .6 no -> shares 1, 1, (two together) 3/4, 4/5, 4/6
@pytest.mark.parametrize(
    ("target", "answered", "precision"), [(1.0, 2, 1.0), (0.8, 5, 0.8), (0.76, 5, 0.8), (0.81, 2, 1.0), (0.6, 6, 4 / 6)]
)
def test_the_threshold_is_the_lowest_that_reaches_the_target(target: float, answered: int, precision: float) -> None:
    rows = two_classes([0.95, 0.9, 0.8, 0.8, 0.7, 0.6])
    truth = np.array([0, 0, 1, 0, 0, 1])
    found = calibrate(truth, rows, target_precision=target)
    scaled = apply_temperature(rows, found.temperature).max(axis=1)
    assert (scaled >= found.threshold).sum() == answered
    assert found.coverage == pytest.approx(answered / 6)
    assert found.precision == pytest.approx(precision)
    assert (found.threshold == 0) == (answered == 6)


def test_slides_of_equal_confidence_are_answered_or_not_together() -> None:
    rows = two_classes([0.9, 0.9, 0.6])
    found = calibrate(np.array([0, 1, 0]), rows, target_precision=0.9)
    assert found.threshold > 1


def test_a_target_out_of_reach_is_not_lowered() -> None:
    found = calibrate(np.array([1, 0, 1, 0]), two_classes([0.9, 0.8, 0.7, 0.6]), target_precision=0.9)
    assert found.threshold > 1
    assert found.coverage == 0
    assert found.precision is None
    assert found.target_precision == 0.9


def test_it_travels_as_json() -> None:
    truth, rows = planted(50, 9, 2.0)
    for one in (calibrate(truth, rows, target_precision=0.9), Calibration.none(0.9)):
        assert Calibration.model_validate_json(one.model_dump_json()) == one
    with pytest.raises(ValidationError):
        Calibration.model_validate({**one.model_dump(), "temprature": 1})


def test_without_out_of_fold_predictions_nothing_is_changed_and_nothing_claimed() -> None:
    one = Calibration.none(0.9)
    assert (one.temperature, one.threshold, one.slides) == (1, 0, 0)
    measured = ("coverage", "precision", "ece_before", "ece_after", "log_loss_before", "log_loss_after")
    assert all(getattr(one, name) is None for name in measured)


@pytest.mark.parametrize(
    ("truth", "rows", "message"),
    [
        ([], np.empty((0, 2)), "no out-of-fold predictions"),
        ([2], np.array([[0.5, 0.5]]), "'2'"),
        ([0, 1], np.array([[0.5, 0.5]]), "2 slides, 2 classes"),
        ([0], np.array([[2.0, -1.0]]), "non-negative"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(truth: list[int], rows: NDArray[np.float64], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        calibrate(np.array(truth, dtype=np.int64), rows, target_precision=0.9)


def test_serving_does_not_wait_for_scipy() -> None:
    code = "import sys, doctogres.evaluation.calibration; sys.exit('scipy' in sys.modules)"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
