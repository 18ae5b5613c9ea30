from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from doctogres.errors import DoctogresError, ParameterError
from doctogres.model.aggregation import POOLING, NoPatchesError, aggregate, aggregate_slides
from doctogres.settings import AnswerSettings

Made = tuple[NDArray[np.floating], NDArray[np.int64]]  # probabilities of patches and their areas
methods = st.sampled_from(tuple(POOLING))


@st.composite
def patches(draw: st.DrawFn, most: int = 30) -> Made:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sureness = np.full(draw(st.integers(2, 7)), draw(st.sampled_from([0.05, 1.0, 20.0])))
    rows = rng.dirichlet(sureness, draw(st.integers(1, most)))
    return rows.astype(draw(st.sampled_from([np.float32, np.float64]))), rng.integers(1, 10**6, len(rows))


def test_the_mean_is_the_mean() -> None:
    rows = np.array([[0.8, 0.2], [0.4, 0.6]])
    np.testing.assert_allclose(aggregate(rows), [0.6, 0.4])


def test_areas_weigh_the_patches() -> None:
    rows = np.array([[0.8, 0.2], [0.4, 0.6]])
    np.testing.assert_allclose(aggregate(rows, weights=np.array([300, 100]), method="area_mean"), [0.7, 0.3])


def test_log_mean_is_the_normalised_geometric_mean() -> None:
    rows = np.array([[0.8, 0.2], [0.2, 0.8], [0.5, 0.5], [0.9, 0.1]])
    expected = np.prod(rows, axis=0) ** 0.25
    np.testing.assert_allclose(aggregate(rows, method="log_mean"), expected / expected.sum())


def test_one_patch_cannot_veto_a_class_under_log_mean() -> None:
    pooled = aggregate(np.array([[1.0, 0.0]] + [[0.01, 0.99]] * 9), method="log_mean")
    assert pooled[1] > 0.9


def test_the_majority_counts_patches_and_not_how_sure_they_are() -> None:
    rows = np.array([[0.0, 1.0, 0.0], [0.6, 0.4, 0.0], [0.6, 0.4, 0.0]])
    # votes 2, 1, 0; means 0.4, 0.6, 0
    np.testing.assert_allclose(aggregate(rows, method="majority"), np.array([2.4, 1.6, 0]) / 4)


def test_a_tied_vote_falls_to_the_higher_mean() -> None:
    pooled = aggregate(np.array([[0.5, 0.45, 0.05], [0.1, 0.8, 0.1]]), method="majority")
    assert pooled.argmax() == 1
    assert (pooled > 0).all()


def test_max_confidence_is_the_surest_patch_and_the_mean_of_tied_ones() -> None:
    rows = np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.5, 0.0, 0.5]])
    np.testing.assert_allclose(aggregate(rows, method="max_confidence"), rows[1])
    tied = np.vstack([rows, [0.8, 0.2, 0.0]])
    np.testing.assert_allclose(aggregate(tied, method="max_confidence"), [0.45, 0.5, 0.05])


def test_top_k_mean_takes_the_highest_quarter_of_each_class() -> None:
    first = np.array([0.9, 0.7, 0.5, 0.4, 0.1])  # a quarter of five, rounded up: two
    highest = np.array([(0.9 + 0.7) / 2, (0.9 + 0.6) / 2])
    pooled = aggregate(np.stack([first, 1 - first], axis=1), method="top_k_mean")
    np.testing.assert_allclose(pooled, highest / highest.sum())


def test_log_sum_exp_by_hand_lies_between_the_mean_and_the_maximum() -> None:
    first = np.array([1.0, 0.0, 0.0, 0.0])
    soft = np.log([(np.exp(5) + 3) / 4, (3 * np.exp(5) + 1) / 4]) / 5
    assert first.mean() < soft[0] < first.max()
    pooled = aggregate(np.stack([first, 1 - first], axis=1), method="log_sum_exp")
    np.testing.assert_allclose(pooled, soft / soft.sum())


def test_a_single_patch_is_its_own_answer() -> None:
    row = np.array([[0.7, 0.2, 0.1]])
    for method in POOLING:
        answer = (row[0] + [1, 0, 0]) / 2 if method == "majority" else row[0]
        np.testing.assert_allclose(aggregate(row, weights=np.array([5]), method=method), answer)


def test_the_settings_offer_these_methods_and_attention() -> None:
    offered = get_args(AnswerSettings.model_fields["aggregation"].annotation)
    assert set(offered) == {*POOLING, "attention"}


def test_attention_cannot_be_made_from_probabilities() -> None:
    with pytest.raises(ParameterError, match="features, not their probabilities"):
        aggregate(np.array([[0.5, 0.5]]), method="attention")


def test_no_patches_is_an_error_of_both_families() -> None:
    with pytest.raises(NoPatchesError, match="no patches") as caught:
        aggregate(np.empty((0, 4)))
    assert isinstance(caught.value, DoctogresError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("rows", "arguments"),
    [
        (np.array([[0.5, 0.5]]), {"method": "median"}),
        (np.array([[0.5, 0.5]]), {"method": "area_mean"}),
        (np.array([[0.5, 0.5]]), {"method": "area_mean", "weights": np.array([1, 2])}),
        (np.array([[0.5, 0.5]]), {"method": "area_mean", "weights": np.array([0])}),
        (np.array([[0.5, 0.5]]), {"method": "area_mean", "weights": np.array([-1])}),
        (np.array([[2.0, -1.0]]), {}),
        (np.array([[3.0, 4.0]]), {}),
        (np.array([[np.nan, 1.0]]), {}),
        (np.array([0.5, 0.5]), {}),
    ],
)
def test_what_is_no_probability_or_no_weight_is_refused(rows: NDArray[np.float64], arguments: dict[str, Any]) -> None:
    with pytest.raises(ParameterError):
        aggregate(rows, **arguments)


@settings(deadline=None)
@given(patches(), methods)
def test_the_answer_is_a_distribution(made: Made, method: str) -> None:
    pooled = aggregate(made[0], weights=made[1], method=method)
    assert pooled.dtype == np.float64
    assert (pooled >= 0).all()
    assert pooled.sum() == pytest.approx(1, abs=1e-12)


@settings(deadline=None)
@given(patches(), methods, st.randoms())
def test_the_order_of_the_patches_cannot_show(made: Made, method: str, random: object) -> None:
    rows, areas = made
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    here = aggregate(rows, weights=areas, method=method)
    np.testing.assert_array_equal(here, aggregate(rows[order], weights=areas[order], method=method))


@settings(deadline=None)
@given(patches(), st.sampled_from(["mean", "area_mean", "max_confidence"]))
def test_a_mean_stays_between_its_patches(made: Made, method: str) -> None:
    rows, areas = made
    pooled = aggregate(rows, weights=areas, method=method)
    assert (pooled >= rows.min(axis=0) - 1e-6).all()
    assert (pooled <= rows.max(axis=0) + 1e-6).all()


@settings(deadline=None)
@given(patches(most=1), st.integers(1, 20), methods)
def test_patches_that_agree_are_the_answer(made: Made, copies: int, method: str) -> None:
    rows = np.repeat(made[0], copies, axis=0)
    pooled = aggregate(rows, weights=np.repeat(made[1], copies), method=method)
    if method == "majority":
        assert pooled.argmax() == rows[0].argmax()
        assert pooled.max() >= copies / (copies + 1)
    else:
        np.testing.assert_allclose(pooled, rows[0] / rows[0].astype(float).sum(), atol=1e-6)  # the floor of log_mean


@settings(deadline=None)
@given(patches(), methods, st.data())
def test_patches_that_move_towards_a_class_never_lower_it(made: Made, method: str, data: st.DataObject) -> None:
    rows, areas = made
    one = data.draw(st.integers(0, rows.shape[1] - 1))
    moving = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    if method == "max_confidence":  # a patch that moves away from its own top class may stop being the surest
        moving[:] = True
    moved = np.where(moving[:, None], 0.8 * rows + 0.2 * np.eye(rows.shape[1])[one], rows)
    before, after = (aggregate(each, weights=areas, method=method)[one] for each in (rows, moved))
    assert after >= before - 1e-6


@settings(deadline=None)
@given(patches(most=60), methods, st.data())
def test_a_slide_alone_gets_bit_for_bit_what_it_gets_in_company(made: Made, method: str, data: st.DataObject) -> None:
    rows, areas = made
    slides = data.draw(st.lists(st.sampled_from("abcdef"), min_size=len(rows), max_size=len(rows)))
    names, pooled = aggregate_slides(slides, np.asfortranarray(rows), areas, method=method)
    assert names == list(dict.fromkeys(slides))
    for name, together in zip(names, pooled, strict=True):
        mine = np.array(slides) == name
        alone = aggregate(rows[mine], weights=areas[mine], method=method)
        assert alone.tobytes() == together.tobytes()
        served = aggregate_slides([name] * int(mine.sum()), rows[mine], areas[mine], method=method)[1]
        assert served[0].tobytes() == together.tobytes()


def test_no_slides_pass_through() -> None:
    names, pooled = aggregate_slides([], np.empty((0, 4)), np.empty(0), method="mean")
    assert names == []
    assert pooled.shape == (0, 4)


def test_a_refused_slide_is_named() -> None:
    rows = np.array([[0.5, 0.5], [np.nan, 0.5]])
    with pytest.raises(ParameterError, match="img_0007"):
        aggregate_slides(["img_0001", "img_0007"], rows, None, method="mean")


def test_patches_that_do_not_line_up_are_refused() -> None:
    with pytest.raises(ParameterError, match="1 slide ids, 2 probability rows"):
        aggregate_slides(["a"], np.full((2, 2), 0.5), None, method="mean")


def test_a_region_without_area_says_nothing_and_any_unit_of_area_does() -> None:
    rows = np.array([[0.8, 0.2], [0.4, 0.6], [0.1, 0.9]])
    areas = np.array([3.0, 1.0, 0.0])
    np.testing.assert_allclose(aggregate(rows, weights=areas, method="area_mean"), [0.7, 0.3])
    for unit in (1e-300, 1e300):
        np.testing.assert_allclose(aggregate(rows, weights=unit * areas, method="area_mean"), [0.7, 0.3])


def test_missing_areas_are_named_with_the_remedy() -> None:
    with pytest.raises(ParameterError, match="area_mean needs the patch areas; give them or choose mean"):
        aggregate(np.array([[0.5, 0.5]]), method="area_mean")
    with pytest.raises(ParameterError, match=r"\(patches, classes\), got shape \(2,\)"):
        aggregate_slides(["x", "y"], np.array([0.5, 0.5]), None, method="mean")
