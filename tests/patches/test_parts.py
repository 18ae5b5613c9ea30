"""The parts of the pixel cache: how slides are divided among them, and who may write them."""

import multiprocessing
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctogres.errors import CohortError, DoctogresError
from doctogres.files import file_digest
from doctogres.patches import cutting
from doctogres.patches import parts as parts_module
from doctogres.patches.cutting import CutSlide, cut_cohort, cut_slides, manifest_of, slides_to_cut
from doctogres.patches.manifest import Manifest
from doctogres.patches.parts import divided
from doctogres.patches.pixels import load_patches, record_shares, view_parts
from doctogres.settings import PatchSettings
from doctogres.slides.table import CohortTable
from tests.patches.test_pixels import cohort_row, draw_slide, table_of

SETTINGS = PatchSettings(patching="regions,tiles16", patch_size=16, min_area=100)
PATCH = 16 * 16 * 3  # bytes
SLIDES = 5  # of two regions each


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most five patches in a part: two slides of two regions."""
    monkeypatch.setattr(parts_module, "PART_BYTES", 5 * PATCH)


@pytest.fixture
def cohort(tmp_path):
    root = tmp_path / "slides"
    return table_of(root, [cohort_row(root, f"img_000{number}", *draw_slide(number)) for number in range(SLIDES)])


def cut(cohort: CohortTable, cache: Path) -> tuple[Manifest, list[Path]]:
    return cut_cohort(cohort, cohort.root, SETTINGS, cache=cache)


def all_pixels(manifest: Manifest, cache: Path) -> dict[str, np.ndarray]:
    return {view: np.asarray(load_patches(manifest, cache=cache, view=view).pixels) for view in SETTINGS.views}


def contents(cache: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.glob("patches/*")}


def inodes(cache: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in cache.glob("patches/*")}


@given(counts=st.lists(st.integers(0, 40), max_size=30))
def test_parts_are_bounded_and_only_a_larger_slide_is_split(counts: list[int]) -> None:
    most = 10
    with patch.object(parts_module, "PART_BYTES", most * PATCH):
        parts = divided([(str(number), count) for number, count in enumerate(counts)], 16)
    assert all(0 < sum(piece.last - piece.first for piece in part) <= most for part in parts)
    pieces = [piece for part in parts for piece in part]
    assert [(piece.slide, row) for piece in pieces for row in range(piece.first, piece.last)] == [
        (str(number), row) for number, count in enumerate(counts) for row in range(count)
    ]
    assert all(counts[int(piece.slide)] > most for piece in pieces if piece.first)


def test_the_pixels_in_many_parts_are_those_in_one(cohort, tmp_path, monkeypatch):
    manifest, paths = cut(cohort, tmp_path / "one")
    assert len(paths) == len(SETTINGS.views)
    whole = all_pixels(manifest, tmp_path / "one")
    monkeypatch.setattr(parts_module, "PART_BYTES", 5 * PATCH)
    again, paths = cut(cohort, tmp_path / "many")
    assert len(view_parts(again, "regions", tmp_path / "many")) == 3
    assert sorted(paths) == sorted((tmp_path / "many" / "patches").iterdir())
    assert max(np.load(path).nbytes for path in paths) <= 5 * PATCH
    assert again.pixels == manifest.pixels
    for view, pixels in all_pixels(again, tmp_path / "many").items():
        assert np.array_equal(pixels, whole[view])


def test_a_slide_larger_than_a_part_is_split(cohort, tmp_path, monkeypatch):
    whole = all_pixels(cut(cohort, tmp_path / "one")[0], tmp_path / "one")
    monkeypatch.setattr(parts_module, "PART_BYTES", PATCH)
    manifest, paths = cut(cohort, tmp_path / "many")
    assert len(paths) == sum(map(len, whole.values()))
    for path in paths[::3]:
        path.unlink()
    for view, pixels in all_pixels(manifest, tmp_path / "many").items():
        assert np.array_equal(pixels, whole[view])


@pytest.mark.usefixtures("small_parts")
def test_only_the_missing_part_is_cut_anew(cohort, tmp_path, capsys):
    cache = tmp_path / "cache"
    manifest, _ = cut(cohort, cache)
    whole, before, written = all_pixels(manifest, cache), contents(cache), inodes(cache)
    lost = view_parts(manifest, "regions", cache)[1]
    assert [piece.slide for piece in lost.pieces] == ["img_0002", "img_0003"]
    lost.path.unlink()
    for slide in ("img_0000", "img_0001", "img_0004"):  # not even looked at
        (cohort.root / f"train_data/{slide}.png").unlink()
    assert np.array_equal(all_pixels(manifest, cache)["regions"], whole["regions"])
    assert (
        f"1 of 3 parts of the pixels are missing; 3.07 kB are cut again into {cache / 'patches'}"
        in capsys.readouterr().out
    )
    assert contents(cache) == before
    assert {name for name, inode in inodes(cache).items() if inode != written[name]} <= {lost.path.name}
    lost.path.unlink()
    (cohort.root / "train_data/img_0003.png").unlink()
    with pytest.raises(CohortError, match=r"img_0003: .*img_0003\.png does not exist.*data=FOLDER"):
        load_patches(manifest, cache=cache)


def write_parts(cohort: CohortTable, cache: Path, begin: Any) -> None:
    """In a process of its own."""
    parts_module.PART_BYTES = 5 * PATCH  # type: ignore[misc]
    begin.wait()
    for _ in range(5):
        assert len(list(cut_slides(slides_to_cut(cohort), cohort.root, SETTINGS, cache=cache))) == SLIDES


@pytest.mark.slow
@pytest.mark.usefixtures("small_parts")
def test_two_writers_of_the_same_parts_leave_one_of_each(cohort, tmp_path):
    cut(cohort, tmp_path / "alone")
    spawn = multiprocessing.get_context("spawn")
    begin = spawn.Barrier(2)
    writers = [spawn.Process(target=write_parts, args=(cohort, tmp_path / "shared", begin)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


def cut_in_shares(cohort, cache, order):
    """The manifest of slides that were cut in shares, and the shares."""
    slides = slides_to_cut(cohort)
    shares = [[slides[place] for place in share] for share in order]
    found: dict[str, CutSlide] = {}
    for share in shares:
        cuts = cut_slides(share, cohort.root, SETTINGS, cache=cache)
        found |= {cut.slide_id: cut for cut in cuts if isinstance(cut, CutSlide)}
    joined = manifest_of(cohort, [found[slide.slide_id] for slide in slides], cohort.root, SETTINGS)
    return joined, [[slide.slide_id for slide in share] for share in shares]


@pytest.mark.usefixtures("small_parts")
def test_shares_cut_apart_are_read_as_one_cut(cohort, tmp_path):
    manifest, _ = cut(cohort, tmp_path / "whole")
    cache = tmp_path / "cache"
    joined, shares = cut_in_shares(cohort, cache, [[1, 3, 4], [0, 2]])
    pd.testing.assert_frame_equal(joined.rows, manifest.rows)
    assert joined.pixels == manifest.pixels
    record_shares(joined, shares, cache)
    before = inodes(cache)
    for picture in cohort.root.glob("train_data/*"):
        picture.unlink()
    joined.write(tmp_path / "patches.parquet")
    expected, given = (
        all_pixels(manifest, tmp_path / "whole"),
        all_pixels(Manifest.read(tmp_path / "patches.parquet"), cache),
    )
    assert all(np.array_equal(given[view], expected[view]) for view in SETTINGS.views)
    assert inodes(cache) == before


@pytest.mark.usefixtures("small_parts")
def test_without_the_record_of_the_shares_the_parts_are_cut_in_order(cohort, tmp_path):
    manifest, paths = cut(cohort, tmp_path / "whole")
    cache = tmp_path / "cache"
    joined, shares = cut_in_shares(cohort, cache, [[1, 3, 4], [0, 2]])
    record_shares(joined, shares, cache)
    record_shares(joined, [joined.rows["slide_id"].unique().tolist()], cache)  # all were cut in one, later
    assert np.array_equal(all_pixels(joined, cache)["regions"], all_pixels(manifest, tmp_path / "whole")["regions"])
    assert {path.name for path in paths} <= set(contents(cache))


def test_a_record_of_other_shares_is_named(cohort, tmp_path):
    manifest, _ = cut(cohort, tmp_path)
    record_shares(manifest, [["img_0000"], ["img_0001"]], tmp_path)
    with pytest.raises(DoctogresError, match=f"{manifest.pixels}.json: its slides are not those of the patch manifest"):
        load_patches(manifest, cache=tmp_path)


def test_slides_of_another_name_have_the_same_parts(cohort, tmp_path):
    paths = cut(cohort, tmp_path)[1]
    renamed = CohortTable(cohort.rows.assign(slide_id="s" + cohort.rows["slide_id"]), cohort.root, "digest")
    assert cut(renamed, tmp_path)[1] == paths


def test_a_slide_whose_pixels_cannot_be_read_is_a_dropped_row(cohort, tmp_path):
    """`clean` reads only an overview of a pyramid: that a tile is damaged shows when the slide is cut."""
    whole, _ = cut(cohort, tmp_path / "whole")
    broken = cohort.root / cohort.rows["image"][1]
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(CohortError, match="is not the one that was cleaned: run `clean` again"):
        cut(cohort, tmp_path / "changed")
    cohort.rows.loc[1, "image_md5"] = file_digest(broken, algorithm="md5", length=None)
    manifest, _ = cut(cohort, tmp_path / "cache")
    (row,) = manifest.unreadable.to_dict("records")
    assert (row["slide_id"], row["outcome"], row["view"]) == ("img_0001", "dropped", "regions")
    assert row["reason"].startswith("unreadable_image: train_data/img_0001.png")
    assert whole.unreadable.empty
    for view in SETTINGS.views:
        expected = whole.kept_of(view).query("slide_id != 'img_0001'").reset_index(drop=True)
        pd.testing.assert_frame_equal(manifest.kept_of(view), expected)
    pixels = all_pixels(manifest, tmp_path / "cache")
    assert [len(pixels[view]) for view in SETTINGS.views] == [len(manifest.kept_of(view)) for view in SETTINGS.views]


def test_what_was_found_on_a_slide_is_not_kept_until_the_last(cohort, tmp_path, monkeypatch):
    refs, alive = [], []

    def noted(*given: Any, **options: Any) -> Iterator[Any]:
        for found in cut_slides(*given, **options):
            refs.append(weakref.ref(found))
            alive.append(sum(ref() is not None for ref in refs))
            yield found

    monkeypatch.setattr(cutting, "cut_slides", noted)
    cut(cohort, tmp_path / "cache")
    assert len(alive) == SLIDES
    assert max(alive) <= 3
