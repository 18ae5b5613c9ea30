"""The command that a person types to start a process again, and whether another `mlflow run` is at work."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from doctogres.launcher import find_launch, others_run, typed_command
from tests.servers import ROOT

SHOWN = """
import sys
from doctogres.launcher import find_launch, typed_command
launch = find_launch()
print(launch.run_id, len(launch.processes), typed_command(launch, sys.argv))
"""
LAUNCHER = """
import subprocess, sys
subprocess.run([sys.executable, "train.py", "--epochs", "3"])
"""


def shown(folder: Path, *command: str) -> str:
    (folder / "train.py").write_text(SHOWN)
    (folder / "mlflow").write_text(LAUNCHER)
    (folder / "makefile").write_text(f"demo:\n\t@{sys.executable} mlflow run . -P data=x\n")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of `make test`
    variables = plain | {"PYTHONPATH": str(ROOT / "src"), "MLFLOW_RUN_ID": "0"}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=True).stdout.strip()


def test_the_command_is_the_one_that_was_typed(tmp_path: Path) -> None:
    launch = [
        sys.executable,
        "mlflow",
        "run",
        ".",
        "-P",
        "data=my slides",
        "-P",
        "storage=postgresql://me:secret@db/study",
    ]
    found = shown(tmp_path, *launch)
    assert found == "0 1 mlflow run . -P 'data=my slides' -P 'storage=postgresql://me:***@db/study'"
    assert shown(tmp_path, "make", "demo").endswith("make demo")


def test_without_mlflow_run_it_is_the_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    assert find_launch() is None
    monkeypatch.setenv("MLFLOW_RUN_ID", "0")  # of a process that called MLflow's Python interface
    command = typed_command(find_launch(), ["/home/me/doctogres/entrypoints/train.py", "--data", "my slides"])
    assert command == "python -m entrypoints.train --data 'my slides'"


def test_an_mlflow_run_other_than_the_one_above_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow").write_text("input()")
    launch = subprocess.Popen([sys.executable, str(tmp_path / "mlflow"), "run", "."], stdin=subprocess.PIPE)
    monkeypatch.setattr(psutil, "process_iter", lambda: [psutil.Process(launch.pid)])
    try:
        assert others_run()
        monkeypatch.setattr(psutil.Process, "parents", lambda self: [launch])
        assert not others_run()
    finally:
        launch.kill()
        launch.wait()
