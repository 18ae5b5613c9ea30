"""patch where others have cut: in shares of the slides, and on Spark."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doctogres.errors import DoctogresError
from doctogres.files import workspace
from doctogres.patches.manifest import Manifest
from doctogres.patches.pixels import load_patches, view_parts
from doctogres.presets import load_preset
from doctogres.stages.clean import clean
from doctogres.stages.patch import patch
from doctogres.tracking.places import fetch
from doctogres.tracking.runs import StageResult, finished_runs
from tests.spark_cluster import cluster

VIEWS = {"patching": "regions,window96"}


@pytest.fixture
def cohort(store: Path, small_cohort: Path) -> str:
    return fetch(clean(data=str(small_cohort), preset=load_preset("demo"), seed=1).artifacts["cohort"]).as_posix()


def run(cohort: str, shard: str = "", **options: Any) -> StageResult:
    return patch(cohort=cohort, preset=load_preset("demo", VIEWS), shard=shard, **options)


def manifest_of(result: StageResult) -> Manifest:
    return Manifest.read(fetch(result.artifacts["patches"]))


def parts(manifest: Manifest) -> list[Path]:
    return [part.path for view in manifest.patch.views for part in view_parts(manifest, view, workspace())]


def assert_same(first: Manifest, second: Manifest, pixels: dict[str, Any]) -> None:
    pd.testing.assert_frame_equal(first.rows, second.rows)
    for name in ("data_digest", "images", "image_md5", "pixels", "masks", "figures", "mpp"):
        assert getattr(first, name) == getattr(second, name), name
    for view in second.patch.views:
        found = load_patches(second, cache=workspace(), view=view).pixels[:]
        np.testing.assert_array_equal(pixels[view], found)


def pixels_of(manifest: Manifest) -> dict[str, Any]:
    return {view: load_patches(manifest, cache=workspace(), view=view).pixels[:] for view in manifest.patch.views}


@pytest.mark.parametrize("count", [1, 3])
def test_joined_shares_are_one_run_and_their_pixels_are_read(store: Path, cohort: str, count: int) -> None:
    for number in range(1, count + 1):
        run(cohort, f"{number}/{count}")
    assert not finished_runs("patch")
    written = {path: path.stat().st_ino for path in (workspace() / "patches").glob("*.npy")}
    joined = run(cohort, "join")
    manifest = manifest_of(joined)
    pixels = pixels_of(manifest)
    assert {path: path.stat().st_ino for path in parts(manifest)} == written  # no file was written again
    assert run(cohort).run_id == joined.run_id
    alone = run(cohort, rerun=True)
    assert_same(manifest, manifest_of(alone), pixels)


def test_a_slide_that_cannot_be_cut_is_a_row_of_its_share_and_named_by_the_join(
    store: Path, cohort: str, small_cohort: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(small_cohort, moved)
    (moved / pd.read_parquet(cohort).query("outcome == 'kept'")["image"].iloc[3]).write_bytes(b"no picture")
    made = run(cohort, "1/1", data=str(moved))
    assert made.metrics["problem_slides"] == 1
    for shard in ("join", ""):
        with pytest.raises(DoctogresError, match="is not a picture this project reads"):
            run(cohort, shard, data=str(moved))


@pytest.mark.slow
def test_spark_cuts_as_one_machine_does(
    store: Path, cohort: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doctogres.stages.patch.TOGETHER", 5)
    (folder := tmp_path / "cluster").mkdir()
    with cluster(folder) as made:
        by_spark = run(cohort, engine="spark", spark_master=made.master)
    manifest = manifest_of(by_spark)
    written = {path: path.stat().st_ino for path in (workspace() / "patches").glob("*.npy")}
    pixels = pixels_of(manifest)
    assert {path: path.stat().st_ino for path in parts(manifest)} == written
    assert len(written) > 4
    assert run(cohort).run_id == by_spark.run_id
    assert_same(manifest, manifest_of(run(cohort, rerun=True)), pixels)
