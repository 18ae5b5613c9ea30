"""What the folder of networks keeps."""

import os
import time
from pathlib import Path

import pytest

from doctogres.files import WORKSPACE_VARIABLE
from doctogres.storage import DAY
from doctogres.training import members


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, with room for two files of 1000 bytes."""
    monkeypatch.setenv(WORKSPACE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(members, "KEPT_BYTES", 2000)
    (tmp_path / "networks").mkdir()
    return tmp_path / "networks"


def written(path: Path, days: float) -> Path:
    path.write_bytes(bytes(1000))
    then = time.time() - days * DAY
    os.utime(path, (then, then))
    return path


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_least_recently_used_go_states_of_interrupted_trainings_among_them(networks: Path) -> None:
    for name, days in {"a.pt": 1, "b.checkpoint": 2, "c.pt": 3, "d.checkpoint": 4}.items():
        written(networks / name, days)
    used = {written(networks / "e.pt", 5)}
    members._forget_oldest(used)
    assert kept(networks) == {"a.pt", "b.checkpoint", "e.pt"}


def test_a_state_that_another_training_may_be_writing_stays(networks: Path) -> None:
    for name in ("a.pt", "b.pt"):
        written(networks / name, 0)
    written(networks / "c.checkpoint", 0.5)
    written(networks / "d.checkpoint", 1.5)
    members._forget_oldest(set())
    assert kept(networks) == {"a.pt", "b.pt", "c.checkpoint"}


@pytest.mark.parametrize("function", ["stat", "unlink"])
def test_another_training_may_remove_files_meanwhile(
    networks: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    files = [written(networks / f"{name}.pt", 1) for name in "abc"]
    original = getattr(Path, function)

    def late(path: Path, **options: bool) -> object:
        for file in filter(os.path.exists, files):
            os.unlink(file)
        return original(path, **options)

    with monkeypatch.context() as patcher:
        patcher.setattr(Path, function, late)
        members._forget_oldest(set())
    assert kept(networks) == set()
