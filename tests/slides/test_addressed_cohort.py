"""A cohort at an address, here in fsspec's store in memory, is the same cohort as in a folder."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from doctogres.errors import CohortError
from doctogres.files import workspace
from doctogres.slides.cohort import content_digest, file_hashes, find_slides, open_cohort, slide_files, slide_root
from doctogres.slides.layout import LABELS
from doctogres.slides.selection import is_outside, outside_cohort, short_name, split_key
from doctogres.slides.survey import survey
from doctogres.stages.init import cohort_table

ADDRESS = "memory://bucket/study/demo"


@pytest.fixture(autouse=True)
def store(small_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryFileSystem]:
    monkeypatch.setenv("DOCTOGRES_WORKSPACE", str(tmp_path / "workspace"))
    found = fsspec.filesystem("memory")
    found.put(str(small_cohort), "/bucket/study/demo", recursive=True)
    yield found
    found.store.clear()
    found.pseudo_dirs[:] = [""]


def digest_of(root: Path) -> str:
    return content_digest(file_hashes(root, [LABELS, *slide_files(root, find_slides(root))]))


def opened(data: str | Path) -> Path:
    return open_cohort(data, workspace=workspace())


def test_it_has_the_digest_of_the_same_folder(small_cohort: Path) -> None:
    assert digest_of(opened(ADDRESS)) == digest_of(opened(small_cohort))
    assert digest_of(slide_root(Path("gone"), ADDRESS)) == digest_of(small_cohort)


def test_a_zip_at_an_address_is_unpacked(small_cohort: Path, tmp_path: Path, store: MemoryFileSystem) -> None:
    store.put_file(shutil.make_archive(str(tmp_path / "demo"), "zip", small_cohort), "/bucket/demo.zip")
    assert digest_of(opened("memory://bucket/demo.zip")) == digest_of(small_cohort)


@pytest.mark.parametrize(
    ("start", "beside"), [(f"{ADDRESS}/train_data", True), (f"{ADDRESS}/train_data", False), ("train_data", True)]
)
def test_a_table_of_addresses_is_the_cohort_of_their_files(
    small_cohort: Path, tmp_path: Path, store: MemoryFileSystem, start: str, beside: bool
) -> None:
    labels = pd.read_csv(small_cohort / LABELS)
    name = labels["sample_index"].str.removeprefix("img_").str.removesuffix(".png") + ".png"
    table = pd.DataFrame({"image": f"{start}/img_" + name, "mask": f"{start}/mask_" + name})
    table["label"] = labels["label"]
    for folder in (small_cohort, None):  # the folder itself, then what lies at the addresses
        here = tmp_path / ("paths.csv" if folder else "cohort.csv")
        given = table if folder is None else table.assign(image=_here(table, folder), mask=_here(table, folder, "mask"))
        given.to_csv(here, index=False)
    data = str(tmp_path / "cohort.csv")
    if beside:
        store.put_file(data, "/bucket/study/demo/cohort.csv")
        data = f"{ADDRESS}/cohort.csv"
    assert digest_of(opened(data)) == digest_of(opened(tmp_path / "paths.csv"))


def test_a_file_that_is_not_at_its_address_costs_one_slide(tmp_path: Path, store: MemoryFileSystem) -> None:
    table = cohort_table(survey(opened(ADDRESS)), tmp_path, address=ADDRESS)
    table.to_csv(tmp_path / "cohort.csv", index=False)
    before = find_slides(opened(tmp_path / "cohort.csv"))
    lost = before[before["outcome"] == "kept"].iloc[0]
    store.rm(f"/bucket/study/demo/{lost['image'].partition('/')[2]}")
    after = find_slides(opened(tmp_path / "cohort.csv")).set_index("slide_id")
    assert after.loc[lost["slide_id"], "reason"].startswith("missing_image")
    assert (after["outcome"] == "kept").sum() == (before["outcome"] == "kept").sum() - 1


def _here(table: pd.DataFrame, folder: Path, column: str = "image") -> pd.Series:
    return f"{folder}/train_data/" + table[column].str.rpartition("/")[2]


def test_init_writes_addresses_which_the_other_stages_read(small_cohort: Path, tmp_path: Path) -> None:
    table = cohort_table(survey(opened(ADDRESS)), tmp_path, address=ADDRESS)
    assert table["image"].str.startswith(f"{ADDRESS}/").all()
    table.to_csv(tmp_path / "cohort.csv", index=False)
    slides = find_slides(opened(tmp_path / "cohort.csv"))
    assert (slides["outcome"] == "kept").sum() == (find_slides(small_cohort)["outcome"] == "kept").sum()


def test_an_outside_cohort_may_be_one(small_cohort: Path) -> None:
    assert is_outside(ADDRESS)
    assert (short_name(ADDRESS), split_key(f"{ADDRESS}.zip")) == ("demo", "outside/demo")
    assert outside_cohort(ADDRESS).data_digest == outside_cohort(str(small_cohort)).data_digest


def test_what_is_no_cohort_is_refused_as_a_folder_would_be(store: MemoryFileSystem) -> None:
    store.pipe_file("/bucket/notes.txt", b"nothing")
    with pytest.raises(CohortError, match="neither a folder nor a readable zip"):
        opened("memory://bucket/notes.txt")
