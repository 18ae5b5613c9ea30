"""A command that a full disk stops says so in one line, and goes on once there is room."""

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from tests.disks import SmallDisk, small_disk
from tests.servers import ROOT
from tests.stores import new_store, plain_environment

pytestmark = pytest.mark.slow
FOLDERS = ("store", "artifacts", "workspace", "tmp")


class Project:
    """A store, its artifacts, a workspace and temporary files, one of which lies on a small disk."""

    def __init__(self, folder: Path, empty_store: Path, data: Path, python: str):
        self.folder, self.data, self.python = folder, data, python
        for name in FOLDERS:
            (folder / name).mkdir(exist_ok=True)
        store = new_store(empty_store, folder / "store")
        SqlAlchemyStore(store, str(folder)).create_experiment("doctogres", artifact_location=str(folder / "artifacts"))
        self.environment = plain_environment() | {
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
            "MLFLOW_TRACKING_URI": store,
            "DOCTOGRES_WORKSPACE": str(folder / "workspace"),
            "TMPDIR": str(folder / "tmp"),
        }

    def run(self, stage: str, *options: str) -> subprocess.CompletedProcess[str]:
        command = [self.python, "-m", f"entrypoints.{stage}", "--data", str(self.data), *options]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )

    def succeed(self, stage: str, *options: str) -> None:
        done = self.run(stage, *options)
        assert done.returncode == 0, done.stderr[-3000:]

    def be_stopped(self, stage: str, disk: Path, *options: str) -> None:
        done = self.run(stage, *options)
        last = done.stderr.strip().splitlines()[-1]
        assert done.returncode == 1, done.stderr[-3000:]
        assert last.startswith(f"{stage}: error: {disk}"), done.stderr[-3000:]
        assert " is full: " in last
        assert " needed, " in last
        assert "continues from what is kept" in last
        assert "Traceback" not in done.stderr

    def statuses(self) -> set[str]:
        with sqlite3.connect(self.folder / "store/mlflow.db") as store:
            return {status for (status,) in store.execute("SELECT status FROM runs")}


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / request.param, kilobytes=20_000) as mounted:
        yield mounted


@pytest.fixture
def project(disk: SmallDisk, tmp_path: Path, empty_store: Path, small_cohort: Path, warm_python: str) -> Project:
    return Project(tmp_path, empty_store, small_cohort, warm_python)


@pytest.mark.parametrize(
    ("disk", "leave"), [("store", 0), ("store", 40), ("artifacts", 100), ("tmp", 100)], indirect=["disk"]
)
def test_clean_names_the_folder_whose_disk_is_full(disk: SmallDisk, project: Project, leave: int) -> None:
    disk.fill(leave)
    project.be_stopped("clean", disk.path)
    disk.resize(40_000)
    project.succeed("clean")
    assert project.statuses() <= {"FINISHED", "FAILED", "KILLED"}


@pytest.mark.parametrize("disk", ["workspace"], indirect=True)
def test_patch_and_train_name_the_workspace_and_go_on(disk: SmallDisk, project: Project) -> None:
    project.succeed("clean")
    disk.fill(100)
    project.be_stopped("patch", disk.path)
    disk.resize(40_000)
    project.succeed("patch")
    (disk.path / "filling").unlink()
    disk.fill(500)
    quick = ("--epochs", "2", "--oof_folds", "1", "--resamples", "200")
    project.be_stopped("train", disk.path, *quick)  # the features of the frozen backbone
    project.be_stopped("train", disk.path, *quick, "--unfreeze_every", "0")  # the checkpoint
    (disk.path / "filling").unlink()
    project.succeed("train", *quick, "--unfreeze_every", "0")
