"""Leave-one-site-out: every fold is a site, and no patient is on both sides."""

from pathlib import Path

import pandas as pd
import pytest

from doctogres.cleaning.cohort import clean_cohort
from doctogres.errors import CohortError, ParameterError
from doctogres.settings import CleanSettings, TrainSettings
from doctogres.slides.site_folds import described, site_folds
from doctogres.slides.splits import HOLDOUT
from doctogres.slides.table import CohortTable
from doctogres.training.folds import check_folds

LABELS = ["a", "b", "a", "b", "a", "b"]
GROUPS = ["p1", "p2", "p3", "p4", "p5", "p6"]
SITES = ["south", "south", "north", "north", "west", "west"]


def test_every_site_is_a_fold() -> None:
    folds, names = site_folds(LABELS, GROUPS, SITES, column="site")
    assert names == {"fold0": "north", "fold1": "south", "fold2": "west"}
    assert [names[fold] for fold in folds] == SITES
    assert described(names, "site") == "fold0 is site north, fold1 is site south, fold2 is site west"


def test_sites_that_share_a_patient_are_left_out_together() -> None:
    groups = ["p1", "p2", "p3", "p2", "p5", "p6"]  # p2 was at south and north
    folds, names = site_folds(LABELS, groups, SITES, column="site")
    assert names == {"fold0": "north + south", "fold1": "west"}
    assert folds.tolist() == ["fold0"] * 4 + ["fold1"] * 2


@pytest.mark.parametrize(
    ("labels", "groups", "sites", "words"),
    [
        (LABELS, GROUPS, ["south"] * 6, "two folds are needed.*make one, south; leave folds_by empty"),
        (
            LABELS,
            ["p", "p", "p", "q", "q", "p"],
            ["n", "s", "s", "n", "n", "n"],
            r"two folds.*make one, n [+] s, because .* link them \(group p at n and s\); correct these groups",
        ),
        (LABELS, GROUPS, [*SITES[:5], ""], "1 of 6 slides have no site; enter it"),
        (["a", "c", "a", "b", "a", "b"], GROUPS, SITES, "class c outside the hold-out are of south.*no network could learn"),
    ],
)  # fmt: skip
def test_what_cannot_be_left_out_is_refused(labels: list[str], groups: list[str], sites: list[str], words: str) -> None:
    with pytest.raises(CohortError, match=f"folds_by=site: .*{words}"):
        site_folds(labels, groups, sites, column="site")


@pytest.fixture
def sited(small_cohort: Path, tmp_path: Path) -> Path:
    """The small cohort with its labels' slides dealt to three sites, a group of its own each."""
    labels = pd.read_csv(small_cohort / "train_labels.csv").sort_values("label", ignore_index=True)
    labels["group"] = [f"p{number}" for number in range(len(labels))]
    labels["site"] = [["north", "south", "west"][number % 3] for number in range(len(labels))]
    (tmp_path / "train_data").symlink_to(small_cohort / "train_data")
    labels.to_csv(tmp_path / "train_labels.csv", index=False)
    return tmp_path


def test_clean_makes_them_of_what_is_not_held_out_and_the_table_names_them(sited: Path) -> None:
    result = clean_cohort(sited, CleanSettings(folds_by="Site", holdout=0.2), seed=2)
    usual = clean_cohort(sited, CleanSettings(holdout=0.2), seed=2)
    CohortTable(result.table, sited, "digest", result.fold_names).write(sited / "cohort.parquet")
    table = CohortTable.read(sited / "cohort.parquet")
    assert table.fold_names == result.fold_names
    assert usual.fold_names == {}
    rows, plain = table.usable.set_index("slide_id"), usual.table.set_index("slide_id")
    held = rows["fold"] == HOLDOUT
    assert (held == (plain.loc[rows.index, "fold"] == HOLDOUT)).all()  # the hold-out is the usual one
    for fold, of_fold in rows[~held].groupby("fold"):
        assert " + ".join(sorted(of_fold["s_site"].unique())) == table.fold_names[str(fold)]
    assert rows.groupby("group")["fold"].nunique().max() == 1


def test_a_column_that_is_not_kept_is_named(sited: Path) -> None:
    with pytest.raises(
        CohortError, match="folds_by=ward: the table of labels has no such column, or it is not kept.*subgroups=ward"
    ):
        clean_cohort(sited, CleanSettings(folds_by="ward"), seed=2)


def test_there_is_no_other_way_to_draw_them() -> None:
    settings = TrainSettings(repeats=2, oof_folds=0)
    check_folds(settings, 3)
    with pytest.raises(ParameterError, match="repeats=2: the folds are those of folds_by"):
        check_folds(settings, 3, named=True)
