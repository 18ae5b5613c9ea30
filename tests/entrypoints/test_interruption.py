"""A command ends when it is told to, and when the `mlflow run` that started it is gone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.servers import ROOT

COMMAND = """
import pathlib, sys, time
from entrypoints.interruption import interruptible
try:
    with interruptible():
        pathlib.Path("ready").touch()
        time.sleep(100)
except KeyboardInterrupt:
    pathlib.Path("stopped").touch()
"""
LAUNCHER = """
import subprocess, sys
subprocess.Popen(["bash", "-c", f"{sys.executable} command.py && true"]).wait()
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    (tmp_path / "command.py").write_text(COMMAND)
    (tmp_path / "mlflow").write_text(LAUNCHER)
    paths = {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}

    def started(*words: str, **variables: str) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_ID"}
        process = subprocess.Popen([sys.executable, *words], cwd=tmp_path, env=environment | paths | variables)
        wait_for(tmp_path / "ready")
        return process

    return started


def wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not come"
        time.sleep(0.05)


def test_sigterm_counts_as_ctrl_c(start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    process = start("command.py")
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert (tmp_path / "stopped").exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_command_stops_with_its_mlflow_run(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, how: signal.Signals
) -> None:
    launcher = start("mlflow", "run", ".", MLFLOW_RUN_ID="0")
    launcher.send_signal(how)
    launcher.wait(60)
    wait_for(tmp_path / "stopped")


def test_a_command_that_no_mlflow_run_started_outlives_its_shell(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    shell = start("mlflow", "run", ".")  # without the run's id: a person's own script
    below = psutil.Process(shell.pid).children(recursive=True)
    shell.kill()
    shell.wait(60)
    time.sleep(2.5)  # more than two looks
    assert not (tmp_path / "stopped").exists()
    for process in below:
        process.kill()
