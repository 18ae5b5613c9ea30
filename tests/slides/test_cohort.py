"""Finding slides, opening zips, and the cohort table."""

import stat
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from doctogres.errors import CohortError, UpstreamError
from doctogres.slides import archives
from doctogres.slides.cohort import content_digest, file_hashes, find_slides, open_cohort
from doctogres.slides.reasons import Reason
from doctogres.slides.table import COLUMNS, CohortTable
from doctogres.storage import held


@pytest.fixture
def root(tmp_path):
    """A cohort by its names: the contents of the pictures do not matter here."""
    folder = tmp_path / "data"
    (folder / "train_data").mkdir(parents=True)
    for slide in range(4):
        (folder / f"train_data/img_{slide:04}.png").write_bytes(b"picture %d" % slide)
        (folder / f"train_data/mask_{slide:04}.png").write_bytes(b"mask %d" % slide)
    write_labels(folder, "img_0000.png,a", "img_0001.png,a", "img_0002.png,b", "img_0003.png,b")
    return folder


def write_labels(folder, *lines, header="sample_index,label"):
    (folder / "train_labels.csv").write_text("\n".join([header, *lines]) + "\n")


def reasons(table):
    return dict(zip(table["slide_id"], map(Reason.of, table["reason"]), strict=True))


def test_every_slide_is_found(root):
    table = find_slides(root)
    assert list(table["slide_id"]) == [f"img_{i:04}" for i in range(4)]
    assert list(table["label"]) == ["a", "a", "b", "b"]
    assert list(table["image"])[0] == "train_data/img_0000.png"
    assert set(table["outcome"]) == {"kept"}


def test_what_is_missing_gets_a_row_with_the_reason(root):
    (root / "train_data/mask_0000.png").unlink()
    (root / "train_data/img_0001.png").unlink()
    (root / "train_data/mask_0009.png").write_bytes(b"")
    (root / "train_data/img_0005.bmp").write_bytes(b"")
    (root / "train_data/img_0003.jpg").write_bytes(b"")
    write_labels(root, "img_0000.png,a", "img_0001.png,a", "img_0002.png, ", "img_0003.png,b", "img_0007.png,b")
    table = find_slides(root)
    assert reasons(table) == {
        "img_0000": "missing_mask",
        "img_0001": "missing_image",
        "img_0002": "unlabelled",
        "img_0003": "ambiguous_files",
        "img_0005": "unsupported_format",
        "img_0007": "missing_image",
        "img_0009": "missing_image",
    }
    assert set(table["outcome"]) == {"dropped"}
    assert table["reason"][0] == "missing_mask: train_data/mask_0000.png does not exist"


def test_labels_may_lack_suffixes_and_carry_groups(root):
    write_labels(root, "img_0000,  a ,p1", "img_0001.PNG,a,p1", "img_0002,b,p2", header="sample_index,label,group")
    table = find_slides(root)
    assert list(table["label"])[:3] == ["a", "a", "b"]
    assert list(table["group"]) == ["p1", "p1", "p2", None]
    assert reasons(table)["img_0003"] == "unlabelled"


def test_labels_that_contradict_each_other(root):
    write_labels(root, "img_0000,a", "img_0000.png,b", "img_0001,a", "img_0001,a", "img_0002,b", "img_0003,b")
    found = reasons(find_slides(root))
    assert found["img_0000"] == "conflicting_labels"
    assert found["img_0001"] is None


def test_unlabelled_slides_lie_in_test_data_or_at_the_top(root, tmp_path):
    (root / "train_data").rename(root / "test_data")
    assert list(find_slides(root, labelled=False)["image"])[0] == "test_data/img_0000.png"
    table = find_slides(root / "test_data", labelled=False)
    assert list(table["mask"])[0] == "mask_0000.png"
    assert table["label"].isna().all()


def test_what_is_no_cohort_is_explained(root, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(CohortError, match="empty has no train_data.*nothing.*-e init --env-manager local"):
        find_slides(empty)
    with pytest.raises(CohortError, match="neither test_data"):
        find_slides(empty, labelled=False)
    (root / "train_labels.csv").write_text("id;label\n1;a\n")
    with pytest.raises(CohortError, match="lacks the column sample_index"):
        find_slides(root)
    (root / "train_labels.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(CohortError, match="train_labels.csv"):
        find_slides(root)
    (root / "train_labels.csv").unlink()
    with pytest.raises(CohortError, match="no train_labels.csv"):
        find_slides(root)


def zip_of(folder, target, prefix=""):
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, prefix + file.relative_to(folder).as_posix())
    return target


@pytest.mark.parametrize("prefix", ["", "challenge/"])
def test_a_zip_holds_the_same_slides_and_is_unpacked_once(root, tmp_path, prefix):
    packed = zip_of(root, tmp_path / "data.zip", prefix)
    opened = open_cohort(packed, workspace=tmp_path / "work")
    assert find_slides(opened).equals(find_slides(root))
    marker = opened / "marker"
    marker.touch()
    assert open_cohort(packed, workspace=tmp_path / "work") == opened
    assert marker.exists()
    assert not list((tmp_path / "work").glob(".*.partial"))
    assert held(tmp_path / "work") & {opened, *opened.parents}  # not to be removed under our feet


def test_a_folder_is_taken_as_it_is(root, tmp_path):
    assert open_cohort(root, workspace=tmp_path / "work") == root.resolve()
    outer = tmp_path / "outer"
    outer.mkdir()
    root.rename(outer / "inner")
    assert open_cohort(outer, workspace=tmp_path / "work") == (outer / "inner").resolve()


@pytest.mark.parametrize("name", ["../outside.png", "/etc/outside.png", "a/../../outside.png", "..\\outside.png"])
def test_a_member_outside_the_target_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(CohortError, match="outside the archive"):
        open_cohort(tmp_path / "bad.zip", workspace=tmp_path / "work")
    assert not list(tmp_path.rglob("outside.png"))


def test_links_and_bombs_are_refused(tmp_path, monkeypatch):
    link = zipfile.ZipInfo("train_data")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, b"/etc")
    with pytest.raises(CohortError, match="link"):
        open_cohort(tmp_path / "link.zip", workspace=tmp_path / "work")
    monkeypatch.setattr(archives, "RATIO_FREE_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * 2_000_000)
    with pytest.raises(CohortError, match="zip bomb"):
        open_cohort(tmp_path / "bomb.zip", workspace=tmp_path / "work")
    assert not list((tmp_path / "work").glob("*"))


def test_what_is_neither_folder_nor_zip_is_named(tmp_path):
    (tmp_path / "data.txt").write_text("x")
    for name in ("data.txt", "absent"):
        with pytest.raises(CohortError, match=f"{name}.*-e init --env-manager local"):
            open_cohort(tmp_path / name, workspace=tmp_path)


def cohort_table():
    table = pd.DataFrame({column: ["x", "y", None] for column in COLUMNS}, dtype="str")
    table["slide_id"] = ["img_0", "img_1", "img_2"]
    table["outcome"] = ["kept", "dropped", "review"]
    table["width"] = table["height"] = pd.array([10, None, 12], dtype="Int64")
    return table


def written(path, rows):
    CohortTable(rows, Path("/data/colon"), "digest").write(path)


def test_the_table_survives_its_file_with_its_root_and_digest(tmp_path):
    written(tmp_path / "out/cohort.parquet", cohort_table())
    table = CohortTable.read(tmp_path / "out/cohort.parquet")
    pd.testing.assert_frame_equal(table.rows, cohort_table())
    assert (table.root, table.data_digest) == (Path("/data/colon"), "digest")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cohort.parquet"]
    assert list(table.usable["slide_id"]) == ["img_0", "img_2"]


def test_another_table_is_refused(tmp_path):
    with pytest.raises(CohortError, match="lacks fold"):
        written(tmp_path / "cohort.parquet", cohort_table().drop(columns="fold"))
    with pytest.raises(CohortError, match="unknown outcome 'gone'"):
        written(tmp_path / "cohort.parquet", cohort_table().assign(outcome="gone"))
    with pytest.raises(CohortError, match="img_0 twice"):
        written(tmp_path / "cohort.parquet", cohort_table().assign(slide_id="img_0"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "text.parquet").write_text("no")
    with pytest.raises(UpstreamError, match="text.parquet"):
        CohortTable.read(tmp_path / "text.parquet")


def test_the_digest_knows_names_and_bytes_but_not_the_place(root, tmp_path):
    files = [f"train_data/img_{i:04}.png" for i in range(4)]
    first = content_digest(file_hashes(root, files))
    assert content_digest(file_hashes(root, reversed(files))) == first
    moved = root.rename(tmp_path / "elsewhere")
    assert content_digest(file_hashes(moved, files)) == first
    assert content_digest(file_hashes(moved, files[:3])) != first
    (moved / files[0]).write_bytes(np.random.default_rng(0).bytes(9))
    assert content_digest(file_hashes(moved, files)) != first
