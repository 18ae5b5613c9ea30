"""A full disk is told as such, with its folder and what is missing, whatever a library makes of it."""

import errno
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy
from PIL import Image

from doctogres.disk import check_space, free_space, naming_full_disk, size_text
from doctogres.errors import DiskFullError
from doctogres.files import replacing
from tests.disks import SmallDisk, small_disk

NUMBERS = np.random.default_rng(1).random(200_000)  # 1.6 MB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", kilobytes=1024) as mounted:
        yield mounted


def write_sqlite(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE t (a)")
        database.execute("INSERT INTO t VALUES (?)", [NUMBERS.tobytes()])


def write_through_sqlalchemy(path: Path) -> None:
    with sqlalchemy.create_engine(f"sqlite:///{path}").begin() as connection:
        connection.execute(sqlalchemy.text("CREATE TABLE t (a)"))
        connection.execute(sqlalchemy.text("INSERT INTO t VALUES (:a)"), {"a": NUMBERS.tobytes()})


def write_safetensors(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"a": NUMBERS}, path)


def copy_folder(path: Path) -> None:
    source = path.parents[1] / "source"
    source.mkdir()
    (source / "file").write_bytes(NUMBERS.tobytes())
    shutil.copytree(source, path)


WRITERS = {
    "bytes": lambda path: path.write_bytes(NUMBERS.tobytes()),
    "npy": lambda path: np.save(path, NUMBERS),
    "csv": lambda path: pd.DataFrame({"a": NUMBERS}).to_csv(path),
    "parquet": lambda path: pq.write_table(pa.table({"a": NUMBERS}), path),
    "png": lambda path: Image.fromarray(NUMBERS.view(np.uint8).reshape(800, -1)).save(path, format="png"),
    "safetensors": write_safetensors,
    "SQLite": write_sqlite,
    "SQLAlchemy": write_through_sqlalchemy,
    "a folder": copy_folder,
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_named_whatever_writes(name: str, disk: SmallDisk, tmp_path: Path) -> None:
    write: Callable[[Path], None] = WRITERS[name]
    with pytest.raises(DiskFullError) as caught, naming_full_disk(tmp_path, disk.path):
        write(disk.path / "file")
    message = str(caught.value)
    assert message.startswith(f"{disk.path}: the disk, or your quota on it, is full: more than "), message
    assert " kB free" in message or " MB free" in message or " bytes free" in message
    assert "the same command again: it continues" in message
    assert "\n" not in message


def test_a_file_that_does_not_fit_leaves_the_disk_as_it_was(disk: SmallDisk) -> None:
    before = free_space(disk.path)
    words = f"more than {size_text(before)} needed, {size_text(before)} free"
    with pytest.raises(DiskFullError, match=words), replacing(disk.path / "pixels.npy") as partial:
        partial.write_bytes(NUMBERS.tobytes())
    assert list(disk.path.iterdir()) == []
    assert free_space(disk.path) == before


def test_a_size_that_is_known_is_refused_before_anything_is_written(disk: SmallDisk) -> None:
    path, words = disk.path / "new" / "pixels.npy", r"/disk/new: .* 1\.6 MB needed, 1\.05 MB free"
    with pytest.raises(DiskFullError, match=words), replacing(path, needed=NUMBERS.nbytes):
        pytest.fail("work was begun")
    check_space(disk.path / "a/folder/not/there", 1_000_000)


def test_the_known_size_is_told_if_the_disk_fills_up_meanwhile(disk: SmallDisk) -> None:
    with (
        pytest.raises(DiskFullError, match=r"1 MB needed, 614 kB free"),
        replacing(disk.path / "a", needed=10**6) as path,
    ):
        (disk.path / "another").write_bytes(b"x" * 424 * 1024)
        path.write_bytes(b"x" * 10**6)


def test_a_quota_counts_as_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="your quota"), naming_full_disk(tmp_path):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), ValueError("full"), KeyboardInterrupt()])
def test_other_errors_pass(error: BaseException, tmp_path: Path) -> None:
    with pytest.raises(type(error)) as caught, naming_full_disk(tmp_path):
        raise error
    assert caught.value is error


def test_the_first_full_disk_is_told_not_the_store_that_could_not_record_it(tmp_path: Path) -> None:
    def fail() -> None:
        try:
            raise DiskFullError("first")
        finally:
            raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(DiskFullError, match="^first$"), naming_full_disk(tmp_path):
        fail()


@pytest.mark.parametrize("full", [True, False])
def test_no_place_for_temporary_files_is_told_where_the_disk_is_full(full: bool, disk: SmallDisk) -> None:
    if full:
        disk.fill()
    expected = DiskFullError if full else FileNotFoundError
    with pytest.raises(expected), naming_full_disk(disk.path):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (93_784, "93.8 kB"), (12_400_000, "12.4 MB"), (3.2e12, "3.2 TB")],
)
def test_sizes_are_written_as_people_do(size: float, text: str) -> None:
    assert size_text(size) == text
