"""Hold-out and folds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctogres.errors import ParameterError
from doctogres.slides.splits import HOLDOUT, LeakageError, assign_folds, check_no_leakage, draw_folds

SLIDES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12).map(str)), min_size=1, max_size=60)


@given(SLIDES, st.floats(0.05, 0.85), st.integers(2, 6), st.integers(0, 9))
def test_groups_stay_whole_and_every_class_is_trained(slides, holdout, folds, seed):
    labels, groups = zip(*slides, strict=True)
    sides = assign_folds(labels, groups, holdout=holdout, folds=folds, seed=seed)
    check_no_leakage(sides, groups)
    assert set(sides) <= {HOLDOUT, *(f"fold{i}" for i in range(folds))}
    trained = {label for label, side in zip(labels, sides, strict=True) if side != HOLDOUT}
    assert trained == set(labels)


@given(SLIDES, st.randoms())
def test_the_order_of_the_slides_does_not_matter(slides, random):
    shuffled = slides.copy()
    random.shuffle(shuffled)
    split = []
    for rows in (slides, shuffled):
        labels, groups = zip(*rows, strict=True)
        sides = assign_folds(labels, groups, holdout=0.2, folds=3, seed=1)
        split.append(dict(zip(groups, sides, strict=True)))
    assert split[0] == split[1]


def test_shares_are_about_as_asked_within_every_class():
    labels = ["a"] * 100 + ["b"] * 50 + ["c"] * 20
    groups = [str(i) for i in range(170)]
    sides = assign_folds(labels, groups, holdout=0.2, folds=5, seed=3)
    held = np.array(labels)[sides == HOLDOUT]
    assert [int((held == name).sum()) for name in "abc"] == [20, 10, 4]
    for fold in range(5):
        assert abs(int(((sides == f"fold{fold}") & (np.array(labels) == "a")).sum()) - 16) <= 1


def test_another_seed_gives_another_split():
    labels, groups = ["a", "b"] * 20, [str(i) for i in range(40)]
    splits = {tuple(assign_folds(labels, groups, holdout=0.3, folds=3, seed=seed)) for seed in range(5)}
    assert len(splits) > 1


def test_two_slides_per_class_split_without_losing_a_class():
    sides = assign_folds(["a", "a", "b", "b"], list("wxyz"), holdout=0.2, folds=5, seed=0)
    assert (sides == HOLDOUT).sum() == 1


def test_no_slides_no_folds():
    assert assign_folds([], [], holdout=0.2, folds=2, seed=0).shape == (0,)


def test_leakage_names_the_group():
    with pytest.raises(LeakageError, match="patient7 in fold0 and holdout"):
        check_no_leakage(["holdout", "fold0", "fold0"], ["patient7", "patient7", "p"])


@pytest.mark.parametrize(
    ("labels", "holdout", "folds", "named"),
    [
        (["a"], 0.2, 3, "1 labels but 2 groups"),
        (["a", "b"], 0.0, 3, "holdout=0.0"),
        (["a", "b"], 1.0, 3, "holdout=1.0"),
        (["a", "b"], 0.2, 1, "folds=1"),
    ],
)
def test_a_split_that_cannot_be_is_refused(labels, holdout, folds, named):
    with pytest.raises(ParameterError, match=named):
        assign_folds(labels, ["x", "y"], holdout=holdout, folds=folds, seed=0)


@pytest.mark.parametrize("seed", range(10))
def test_patients_of_very_different_size_share_out_as_evenly_as_they_can(seed):
    """Large groups first: small ones fill what is left."""
    sizes = [30, 25, 20, 15, 10, *[1] * 100]
    groups = [f"p{patient}" for patient, size in enumerate(sizes) for _ in range(size)]
    labels = ["ab"[patient % 2] for patient, size in enumerate(sizes) for _ in range(size)]
    sides = draw_folds(labels, groups, folds=4, seed=seed)
    for fold in range(4):
        for label in "ab":
            held = [one for one, side in zip(labels, sides, strict=True) if side == f"fold{fold}"]
            assert abs(held.count(label) - labels.count(label) / 4) <= 6
    sides = assign_folds(labels, groups, holdout=0.25, folds=4, seed=seed)
    assert abs((sides == HOLDOUT).mean() - 0.25) <= 0.02


@pytest.mark.parametrize("seed", range(5))
def test_where_every_group_is_large_the_smallest_that_no_class_needs_is_held_out(seed):
    groups = [name for name, size in (("x", 9), ("y", 7), ("z", 8)) for _ in range(size)]
    labels = ["a", "b"] * 12
    sides = assign_folds(labels, groups, holdout=0.05, folds=2, seed=seed)
    assert {group for group, side in zip(groups, sides, strict=True) if side == HOLDOUT} == {"y"}
    lonely = ["a" if group == "y" else "b" for group in groups]  # now the class of `y` has no other group
    sides = assign_folds(lonely, groups, holdout=0.05, folds=2, seed=seed)
    assert {group for group, side in zip(groups, sides, strict=True) if side == HOLDOUT} == {"z"}
