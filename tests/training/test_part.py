"""The training part and its folds: the hold-out stays out, new draws are other folds, groups stay together."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doctogres.errors import CohortError
from doctogres.patches.pixels import PatchSet
from doctogres.slides.splits import HOLDOUT, draw_folds
from doctogres.training.part import TrainingPart, training_part
from doctogres.training.samples import Samples


@pytest.fixture
def part() -> TrainingPart:
    """40 slides of two patches, two slides a group, eight of them held out."""
    slides = pd.DataFrame({"slide_id": [f"s{one:02d}" for one in range(40)]})
    slides["group"] = [f"g{one // 2}" for one in range(40)]
    slides["label"] = ["a" if one % 4 < 2 else "b" for one in range(40)]
    slides["fold"] = draw_folds(slides["label"].tolist(), slides["group"].tolist(), folds=3, seed=0)
    slides.loc[32:, "fold"] = HOLDOUT
    table = slides.loc[slides.index.repeat(2)].reset_index(drop=True)
    pixels = np.zeros((80, 8, 8, 3), np.uint8)
    samples = Samples(pixels, np.zeros(80, np.int64), table["slide_id"].to_numpy(str), np.ones(80))
    return TrainingPart(PatchSet(table, pixels), samples, ["a", "b"], ["fold0", "fold1", "fold2"])


@pytest.mark.parametrize("repeat", [0, 1, 2])
def test_every_patch_outside_the_hold_out_is_left_out_once(part: TrainingPart, repeat: int) -> None:
    divisions = [part.rows(fold, repeat=repeat, seed=7) for fold in part.folds]
    np.testing.assert_array_equal(np.sort(np.concatenate([left for _, left in divisions])), np.arange(64))
    groups = part.patches.table["group"].to_numpy()
    for train, left in divisions:
        assert len(train) + len(left) == 64
        assert not set(groups[train]) & set(groups[left])
        assert set(part.patches.table["label"].iloc[left]) == {"a", "b"}


def test_new_draws_are_other_folds_and_the_seed_decides_them(part: TrainingPart) -> None:
    left = {repeat: tuple(part.rows("fold0", repeat=repeat, seed=7)[1]) for repeat in range(4)}
    assert len(set(left.values())) == 4
    assert left[2] == tuple(part.rows("fold0", repeat=2, seed=7)[1])
    assert left[0] == tuple(np.flatnonzero(part.patches.table["fold"] == "fold0"))


def test_a_cohort_whose_folds_have_gaps_is_drawn_anew_all_the_same(part: TrainingPart) -> None:
    table = part.patches.table.replace({"fold": {"fold1": "fold4"}})
    gapped = replace(part, patches=PatchSet(table, part.patches.pixels), folds=["fold0", "fold2", "fold4"])
    left = [gapped.rows(fold, repeat=1, seed=7)[1] for fold in gapped.folds]
    np.testing.assert_array_equal(np.sort(np.concatenate(left)), np.arange(64))


def test_the_hold_out_is_a_set_of_rows_of_its_own(part: TrainingPart) -> None:
    known, held_out = part.row_sets(holdout=True)
    np.testing.assert_array_equal(known, part.all_rows())
    assert set(part.patches.table["fold"][held_out]) == {HOLDOUT}
    np.testing.assert_array_equal(np.sort(np.concatenate([known, held_out])), part.all_rows(holdout=True))
    assert len(part.row_sets()) == 1
    part.patches.table["fold"] = "fold0"
    assert len(part.row_sets(holdout=True)) == 1


def test_a_class_of_which_no_patch_is_left_is_named(part: TrainingPart, monkeypatch: pytest.MonkeyPatch) -> None:
    part.patches.table["area"] = 100
    monkeypatch.setattr("doctogres.training.part.load_patches", lambda *given, **options: part.patches)
    uncut = pd.DataFrame({"slide_id": ["s99"], "label": ["c"], "fold": ["fold0"]})
    manifest: Any = SimpleNamespace(rows=part.patches.table, pixels="digest")
    assert training_part(manifest, "regions", cache=Path()).classes == ["a", "b"]
    manifest.rows = pd.concat([part.patches.table, uncut])
    with pytest.raises(CohortError, match="no training slide of c has a patch"):
        training_part(manifest, "regions", cache=Path())
