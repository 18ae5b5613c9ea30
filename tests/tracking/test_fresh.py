"""A new store is made once, however many commands begin on it."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from doctogres.errors import TrackingError
from doctogres.tracking.fresh import make_store
from tests.servers import ROOT
from tests.stores import plain_environment

BIN = Path(sys.executable).parent
COMMANDS = 4


def started(folder: Path, *command: str) -> subprocess.Popen[str]:
    environment = plain_environment() | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "DOCTOGRES_WORKSPACE": str(folder / "workspace"),
    }
    return subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def all_succeed(processes: list[subprocess.Popen[str]]) -> None:
    for process, printed in [(process, process.communicate()[0]) for process in processes]:
        assert process.returncode == 0, printed[-3000:]


def contents(folder: Path, query: str) -> list[str]:
    with sqlite3.connect(folder / "mlflow.db") as database:
        return [row[0] for row in database.execute(query)]


@pytest.mark.slow
def test_commands_that_begin_together_share_a_new_store(tmp_path: Path) -> None:
    code = (
        "import os, sys, time, mlflow, mlflow.store.tracking.sqlalchemy_store\n"
        "from doctogres.tracking.store import connect\n"
        "open(f'ready-{os.getpid()}', 'w').close()\n"
        f"while sum(name.startswith('ready-') for name in os.listdir()) < {COMMANDS}: time.sleep(0.01)\n"
        "connect()\nmlflow.start_run()\nmlflow.end_run()\n"
    )
    all_succeed([started(tmp_path, sys.executable, "-c", code) for _ in range(COMMANDS)])
    assert sorted(contents(tmp_path, "SELECT name FROM experiments")) == ["Default", "doctogres"]
    assert contents(tmp_path, "SELECT status FROM runs") == ["FINISHED"] * COMMANDS
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_after_make_store_mlflow_run_begins_several_times_at_once(tmp_path: Path) -> None:
    environment = f"BIN={BIN}"
    all_succeed([started(tmp_path, "make", "-C", str(ROOT), "-o", ".venv/.done", "store", environment)])
    assert (tmp_path / "mlflow.db").stat().st_mode & 0o077 == 0
    command = [str(BIN / "mlflow"), "run", str(ROOT), "-e", "demo_data", "--env-manager", "local", "-P", "size=20"]
    all_succeed([started(tmp_path, *command, "-P", f"target={tmp_path / str(seed)}") for seed in range(COMMANDS)])
    finished = contents(tmp_path, "SELECT status FROM runs")  # of each command, MLflow's run and the stage's
    assert finished == ["FINISHED"] * 2 * COMMANDS


@pytest.mark.slow
def test_a_store_made_here_is_the_one_that_mlflow_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    make_store()
    shutil.move("mlflow.db", "ours.db")
    MlflowClient("sqlite:///mlflow.db").search_experiments()
    question = "SELECT artifact_location FROM experiments UNION SELECT name FROM sqlite_master ORDER BY 1"
    theirs = contents(tmp_path, question)
    shutil.move("ours.db", "mlflow.db")
    assert contents(tmp_path, question) == theirs


def test_a_store_that_exists_and_one_that_is_no_file_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for address in ("sqlite://", "sqlite:///:memory:", "http://127.0.0.1:1", "postgresql://127.0.0.1:1/x"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        make_store()
    assert not list(tmp_path.iterdir())
    (tmp_path / "mlflow.db").write_text("theirs")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    make_store()
    assert (tmp_path / "mlflow.db").read_text() == "theirs"


def test_a_store_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(TrackingError, match="cannot be made.*check MLFLOW_TRACKING_URI") as error:
        make_store()
    assert "\n" not in str(error.value)
    assert str(tmp_path / "file") in str(error.value)
