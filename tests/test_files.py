"""How a file takes another's place, and the digests that name contents."""

import hashlib
import os
from pathlib import Path

import pytest

from doctogres.errors import DoctogresError
from doctogres.files import digest, file_digest, partial_beside, replacing


def test_a_file_takes_the_place_of_the_old_one_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "weights.bin"
    for content in ("first", "second"):
        with replacing(path) as partial:
            partial.write_text(content)
            assert path.is_file() is (content == "second")
        assert path.read_text() == content
        assert list(path.parent.iterdir()) == [path]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_leaves_is_known_by_its_name_and_does_not_disturb_the_next(tmp_path: Path) -> None:
    stale = tmp_path / f".cohort.{os.getpid()}.partial"
    (stale / "half").mkdir(parents=True)
    with partial_beside(tmp_path / "cohort") as folder:
        assert folder == stale
        assert not folder.exists()
        folder.mkdir()
    assert not list(tmp_path.iterdir())


def test_digests_of_a_file_of_its_bytes_and_of_its_text_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("Größe", encoding="utf-8")
    content = path.read_bytes()
    assert digest("Größe") == digest(content) == file_digest(path) == hashlib.sha256(content).hexdigest()[:16]
    whole = hashlib.md5(content).hexdigest()
    assert digest(content, algorithm="md5", length=None) == file_digest(path, algorithm="md5", length=None) == whole
    with pytest.raises(DoctogresError, match=r"none\.csv cannot be read: No such file"):
        file_digest(tmp_path / "none.csv")
