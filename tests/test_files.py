"""How a file takes another's place, and the digests that name contents."""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from doctogres.errors import DoctogresError
from doctogres.files import (
    TEMPORARY,
    digest,
    file_digest,
    keep_private,
    partial_beside,
    replacing,
    sweep,
    temporary_files,
)
from doctogres.liveness import process_name


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


def dead_process() -> str:
    """The name of a process of this machine that has ended, as files bear it."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return process_name().replace(f"-{os.getpid()}-", f"-{ended.pid}-")


def test_what_killed_processes_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    dead, elsewhere = dead_process(), "-".join(["00000000"] * 2 + dead_process().split("-")[2:])
    left = [
        f".patches.npy.{dead}.partial",
        f".mlflow.db.{dead}.partial-journal",
        f".cohort.{dead}.partial/half",
        f"{TEMPORARY}{dead}-x1/file",
    ]
    kept = [
        f".patches.npy.{process_name()}.partial", f"{TEMPORARY}{process_name()}-x2/file", f".zip.{elsewhere}.partial",
        f".demo.{dead}.partial-old/slide", "patches.npy", f"{dead}.partial", "doctogres-notes",
    ]  # fmt: skip
    for name in left + kept:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert sweep(tmp_path) == 4
    assert [name for name in left if (tmp_path / name).exists()] == []
    assert [name for name in kept if not (tmp_path / name).is_file()] == []
    assert sweep(tmp_path / "missing") == 0


def test_the_next_writer_clears_away_beside_its_file(tmp_path: Path) -> None:
    stale = tmp_path / f".cohort.{dead_process()}.partial"
    stale.mkdir()
    with partial_beside(tmp_path / "cohort") as folder:
        assert not stale.exists()
        folder.mkdir()
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_of_a_process_lie_in_a_folder_that_names_it() -> None:
    before = tempfile.gettempdir()
    with temporary_files() as folder:
        assert process_name() in folder.name
        assert Path(tempfile.mkdtemp()).parent == folder
    assert not folder.exists()
    assert tempfile.gettempdir() == before


def test_digests_of_a_file_of_its_bytes_and_of_its_text_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("Größe", encoding="utf-8")
    content = path.read_bytes()
    assert digest("Größe") == digest(content) == file_digest(path) == hashlib.sha256(content).hexdigest()[:16]
    whole = hashlib.md5(content).hexdigest()
    assert digest(content, algorithm="md5", length=None) == file_digest(path, algorithm="md5", length=None) == whole
    with pytest.raises(DoctogresError, match=r"none\.csv cannot be read: No such file"):
        file_digest(tmp_path / "none.csv")


@pytest.fixture
def usual_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The umask of most accounts, and a workspace of an earlier version in its usual place."""
    before = os.umask(0o022)
    monkeypatch.chdir(tmp_path)
    for name in ("DOCTOGRES_UMASK", "DOCTOGRES_WORKSPACE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".doctogres").mkdir()
    yield
    os.umask(before)


def modes(folder: Path) -> set[int]:
    """Permissions of a folder and of a file that is then replaced in it."""
    with replacing(folder / "patches" / "pixels.npy") as partial:
        partial.write_bytes(b"pixels")
    return {path.stat().st_mode & 0o777 for path in (folder, folder / "patches", folder / "patches" / "pixels.npy")}


@pytest.mark.usefixtures("usual_umask")
@pytest.mark.parametrize(
    ("setting", "found"), [(None, {0o700, 0o600}), ("027", {0o750, 0o640}), ("0022", {0o755, 0o644})]
)
def test_only_the_user_reads_the_workspace_unless_a_setting_shares_it(
    setting: str | None, found: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if setting:
        monkeypatch.setenv("DOCTOGRES_UMASK", setting)
    keep_private()
    assert modes(tmp_path / ".doctogres") == found


@pytest.mark.usefixtures("usual_umask")
def test_a_shared_folder_that_somebody_named_keeps_its_permissions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCTOGRES_WORKSPACE", str(tmp_path / "shared"))
    (tmp_path / "shared").mkdir(mode=0o755)
    keep_private()
    assert modes(tmp_path / "shared") == {0o755, 0o700, 0o600}


@pytest.mark.usefixtures("usual_umask")
@pytest.mark.parametrize("setting", ["private", "777", "8", "0o077", "-77"])
def test_a_umask_that_is_none_is_refused(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCTOGRES_UMASK", setting)
    with pytest.raises(DoctogresError, match=f"DOCTOGRES_UMASK={setting}: .*027"):
        keep_private()
