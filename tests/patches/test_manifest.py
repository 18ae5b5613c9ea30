"""The patch manifest and its file."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from doctogres.errors import UpstreamError
from doctogres.patches.manifest import COLUMNS, Manifest
from doctogres.settings import PatchSettings
from doctogres.slides.table import COLUMNS as COHORT_COLUMNS
from doctogres.slides.table import CohortTable

NUMBERS = ("x", "y", "width", "height", "area", "mask_fraction")


@pytest.fixture
def manifest() -> Manifest:
    rows = pd.DataFrame({name: [1, 2, 3] if name in NUMBERS else ["a", "b", "c"] for name in COLUMNS})
    rows["outcome"] = ["kept", "dropped", "kept"]
    rows["view"] = "regions"
    return Manifest(
        rows,
        root=Path("/data/colon"),
        data_digest="digest",
        cohort="runs:/1/cohort.parquet",
        images={"a": "train_data/a.png"},
        image_md5={"a": "0f"},
        patch=PatchSettings(patch_size=32, min_area=100),
        pixels="key",
    )


def damaged(path: Path, manifest: Manifest) -> None:
    manifest.write(path)
    path.write_bytes(path.read_bytes()[:-30])


def empty(path: Path, manifest: Manifest) -> None:
    path.write_bytes(b"")


def not_there(path: Path, manifest: Manifest) -> None:
    pass


def text(path: Path, manifest: Manifest) -> None:
    path.write_text("slide_id,x,y\n")


def another_table(path: Path, manifest: Manifest) -> None:
    rows = pd.DataFrame(columns=list(COHORT_COLUMNS), dtype=str)
    CohortTable(rows, Path("/data"), "").write(path)


def without_a_column(path: Path, manifest: Manifest) -> None:
    replace(manifest, rows=manifest.rows.drop(columns="area")).write(path)


def without_metadata(path: Path, manifest: Manifest) -> None:
    manifest.rows.to_parquet(path)


def test_it_survives_its_file_with_all_that_it_knows(manifest: Manifest, tmp_path: Path) -> None:
    manifest.write(tmp_path / "patches.parquet")
    read = Manifest.read(tmp_path / "patches.parquet")
    pd.testing.assert_frame_equal(read.rows, manifest.rows)
    assert replace(read, rows=manifest.rows) == manifest
    assert [entry.name for entry in tmp_path.iterdir()] == ["patches.parquet"]


def test_the_patches_are_the_kept_regions_counted_anew(manifest: Manifest) -> None:
    assert manifest.kept["patch_id"].to_dict() == {0: "a", 1: "c"}


@pytest.mark.parametrize("spoil", [damaged, empty, not_there, text, another_table, without_a_column, without_metadata])
def test_anything_but_a_manifest_is_an_upstream_error_that_names_the_file(
    manifest: Manifest, tmp_path: Path, spoil
) -> None:
    path = tmp_path / "patches.parquet"
    spoil(path, manifest)
    with pytest.raises(UpstreamError, match=r"patches\.parquet: not a patch manifest"):
        Manifest.read(path)


def test_the_error_says_what_a_manifest_lacks(manifest: Manifest, tmp_path: Path) -> None:
    without_a_column(tmp_path / "patches.parquet", manifest)
    with pytest.raises(UpstreamError, match="area missing"):
        Manifest.read(tmp_path / "patches.parquet")
