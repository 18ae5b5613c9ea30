"""Columns of the labels by which scores are split, from the CSV to the cohort table."""

from pathlib import Path

import pandas as pd
import pytest

from doctogres.cleaning.cohort import clean_cohort
from doctogres.errors import CohortError, ParameterError
from doctogres.settings import CleanSettings
from doctogres.slides.cohort import find_slides
from doctogres.slides.selection import outside_cohort
from doctogres.slides.subgroups import subgroup_columns
from doctogres.slides.table import CohortTable


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four pairs of files (not pictures), whose labels a test writes."""
    (tmp_path / "train_data").mkdir()
    for number in range(4):
        for kind in ("img", "mask"):
            (tmp_path / f"train_data/{kind}_{number}.png").write_bytes(f"{kind} {number}".encode())
    return tmp_path


def write(root: Path, *lines: str, table: str = "train_labels.csv") -> None:
    (root / table).write_text("\n".join(lines) + "\n")


def test_recognised_columns_are_kept_and_others_only_by_name(root: Path) -> None:
    rows = [
        f"{number},{'ab'[number % 2]},p{number},{site},Miller,{50 + number}"
        for number, site in enumerate(["N", "n", "", "S"])
    ]
    write(root, "sample_index,label,group,Site,surname,Age", *rows)
    slides = find_slides(root)
    assert subgroup_columns(slides) == ["s_site", "s_age"]
    assert slides["s_site"].tolist() == ["N", "N", "", "S"]  # one spelling
    assert slides["s_age"].tolist() == ["50", "51", "52", "53"]
    assert subgroup_columns(find_slides(root, subgroups="none")) == []
    assert subgroup_columns(find_slides(root, subgroups="surname, AGE")) == ["s_surname", "s_age"]
    assert subgroup_columns(slides, "age") == ["s_age"]
    with pytest.raises(CohortError, match=r"subgroups=town: train_labels.csv has no such column \(it has .*surname"):
        find_slides(root, subgroups="town")
    with pytest.raises(
        CohortError, match=r"subgroups=surname: the slides have no such column \(they have site, age\).*run `clean`"
    ):
        subgroup_columns(slides, "surname")
    with pytest.raises(ParameterError, match="subgroups=Label: this column is no property"):
        find_slides(root, subgroups="Label")


def test_a_place_is_no_patient_beside_a_group_or_where_it_is_named(root: Path) -> None:
    write(root, "sample_index,label,group,hospital", "0,a,p,N", "1,b,q,N", "2,a,r,S", "3,b,s,S")
    assert find_slides(root)["s_hospital"].tolist() == ["N", "N", "S", "S"]
    write(root, "sample_index,label,hospital", "0,a,N", "1,b,N", "2,a,S", "3,b,S")
    with pytest.raises(CohortError, match="'hospital'.*ignore_columns=hospital"):
        find_slides(root)
    assert find_slides(root, subgroups="hospital")["s_hospital"].tolist() == ["N", "N", "S", "S"]
    assert find_slides(root, ignore_columns=["hospital"])["s_hospital"].tolist() == ["N", "N", "S", "S"]


def test_rows_of_a_slide_that_differ_leave_it_open(root: Path) -> None:
    write(root, "sample_index,label,age,sex", "0,a,50,f", "0,a,51,f", "1,b,60,m", "2,a,,", "3,b,70,m")
    slides = find_slides(root)
    assert slides["s_age"].tolist() == ["", "60", "", "70"]
    assert slides["s_sex"].tolist() == ["f", "m", "", "m"]


def test_clean_keeps_them_and_the_table_reads_them_back(small_cohort: Path, tmp_path: Path) -> None:
    labels = pd.read_csv(small_cohort / "train_labels.csv")
    labels["scanner"] = ["old", "new"] * (len(labels) // 2) + ["old"] * (len(labels) % 2)
    for part in ("train_data",):
        (tmp_path / part).symlink_to(small_cohort / part)
    labels.to_csv(tmp_path / "train_labels.csv", index=False)
    result = clean_cohort(tmp_path, CleanSettings(), seed=1)
    CohortTable(result.table, tmp_path, "digest").write(tmp_path / "cohort.parquet")
    rows = CohortTable.read(tmp_path / "cohort.parquet").rows.set_index("slide_id")
    expected = dict(zip(labels["sample_index"].str.removesuffix(".png"), labels["scanner"], strict=True))
    assert rows["s_scanner"].to_dict() == {slide: expected[slide] for slide in rows.index}


def test_the_labels_of_an_outside_cohort_have_them_in_both_layouts(root: Path) -> None:
    write(root, "sample_index,label,scanner", "0,a,x", "1,b,x", "2,a,y", "3,,y")
    assert outside_cohort(str(root)).slides["s_scanner"].tolist() == ["x", "x", "y"]
    (root / "train_labels.csv").rename(root / "test_labels.csv")
    (root / "train_data").rename(root / "test_data")
    assert outside_cohort(str(root)).slides["s_scanner"].tolist() == ["x", "x", "y"]
    assert subgroup_columns(outside_cohort(str(root), subgroups="none").slides) == []
