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

from entrypoints.interruption import held, interruptible
from tests.servers import ROOT, heed_ctrl_c

COMMAND = """
import pathlib, sys, time
from doctogres.launcher import find_launch
from entrypoints.interruption import interruptible
try:
    with interruptible(find_launch()):
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

    def started(*words: str, stderr: int | None = None, **variables: str) -> subprocess.Popen[bytes]:
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_RUN_ID"}
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environment | paths | variables,
            stderr=stderr,
            preexec_fn=heed_ctrl_c,
        )
        wait_for(tmp_path / "ready")
        return process

    return started


def wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path.name} did not come"
        time.sleep(0.05)


# Each step of the clearing waits for the next signal, as `mlflow run` sends SIGTERM after a terminal's Ctrl-C.
CLEARING = """
import pathlib, sys, time
from contextlib import contextmanager
from entrypoints.interruption import interruptible

def step(name):
    pathlib.Path(name).touch()
    for _ in range(600):
        if pathlib.Path(name + "-signalled").exists():
            return
        time.sleep(0.05)

@contextmanager
def run():
    try:
        yield
    except KeyboardInterrupt:
        step("except")
        raise
    finally:
        step("finally")

with interruptible():
    try:
        with run():
            pathlib.Path("ready").touch()
            time.sleep(100)
    except KeyboardInterrupt as error:
        try:
            raise RuntimeError from error
        except RuntimeError:
            step("message")
pathlib.Path("stopped").touch()
"""


def test_further_signals_do_not_break_off_the_clearing(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "command.py").write_text(CLEARING)
    process = start("command.py", stderr=subprocess.PIPE)
    process.send_signal(signal.SIGINT)
    for name, again in (("except", signal.SIGTERM), ("finally", signal.SIGINT), ("message", signal.SIGTERM)):
        wait_for(tmp_path / name)
        process.send_signal(again)
        time.sleep(0.2)
        (tmp_path / f"{name}-signalled").touch()
    errors = process.communicate(timeout=60)[1]
    assert (tmp_path / "stopped").exists(), errors
    assert errors.decode() == "still storing what is kept; Ctrl-\\ ends the command at once\n" * 3


SWALLOWING = COMMAND.replace(
    "time.sleep(100)",
    """
        class Swallows:
            def __del__(self):
                pathlib.Path("swallowing").touch()
                time.sleep(100)
        del (it := [Swallows()])[0]
        pathlib.Path("swallowed").touch()
        time.sleep(100)
""",
)


def test_an_interruption_that_a_library_swallows_does_not_use_up_the_next(
    start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "command.py").write_text(SWALLOWING)
    process = start("command.py", stderr=subprocess.PIPE)
    for sign in ("swallowing", "swallowed"):
        wait_for(tmp_path / sign)
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert (tmp_path / "stopped").exists()


def test_an_interruption_waits_for_the_end_of_a_held_block() -> None:
    steps = []
    with interruptible():
        with pytest.raises(KeyboardInterrupt), held():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.raise_signal(number)
                steps.append(number)
        with held():  # nothing is left of it
            steps.append(signal.SIGTERM)
    assert len(steps) == 3


def test_ctrl_c_stays_ignored_where_a_shell_ignores_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible():
            signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGINT, before)


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
