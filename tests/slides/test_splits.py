"""Hold-out and folds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctogres.slides.splits import HOLDOUT, LeakageError, assign_folds, check_no_leakage

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
