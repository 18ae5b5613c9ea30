"""What `make doctor` says of machines that lack something."""

import os
import subprocess
import sys
from collections import namedtuple
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from doctogres import doctor, fonts
from doctogres.doctor import OK, PROBLEM, WARNING
from tests.servers import ROOT

Memory = namedtuple("Memory", "total available")


def test_packages_are_compared_with_the_pins(tmp_path: Path) -> None:
    pins = tmp_path / "requirements.txt"
    pins.write_text(f"click=={version('click')}\nwinonly==1.0 ; sys_platform == 'win32'\n# a comment\n")
    assert doctor.packages(pins) == doctor.Finding(OK, "packages", "1 as pinned in requirements.txt")
    pins.write_text("click==0.1\n")
    other = doctor.packages(pins)
    assert other.state == WARNING
    assert f"click {version('click')} instead of 0.1; run make setup" in other.text
    pins.write_text("click==0.1\nno-such-package==1.0\n")
    assert str(doctor.packages(pins)).startswith("problem  packages           missing: no-such-package; run make setup")
    assert doctor.packages(tmp_path / "none.txt").state == WARNING


def test_another_python_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.python_version().state == OK
    monkeypatch.setattr(doctor, "PYTHON", (3, 99))
    assert doctor.python_version().state == PROBLEM


@pytest.mark.parametrize(("free", "state"), [(0.5, PROBLEM), (5, WARNING), (50, OK)])
def test_space_and_memory(free: float, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "free_space", lambda folder: free * doctor.GIGABYTE)
    found = doctor.disk(tmp_path / "later", "workspace", "name another folder")
    assert found.state == state
    assert found.text.endswith("name another folder") == (state != OK)
    total = 64 * doctor.GIGABYTE
    monkeypatch.setattr(psutil, "virtual_memory", lambda: Memory(total, free * doctor.GIGABYTE))
    assert doctor.memory().state == state


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = doctor.disk(tmp_path / "file" / "folder", "workspace", "name another folder")
    assert (found.state, str(tmp_path / "file") in found.text) == (PROBLEM, True)


@pytest.mark.parametrize(("java", "state"), [("11.0.2", WARNING), ("17.0.19", OK), ("21", OK), (None, WARNING)])
def test_java(java: str | None, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    if java:
        program = tmp_path / "bin" / "java"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho 'openjdk version \"{java}\" 2026' >&2\n")
        program.chmod(0o755)
    found = doctor.java()
    assert found.state == state
    assert ("only Spark needs it" in found.text) == (state == WARNING)


def test_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_installed", lambda: [fonts._dejavu()])
    found = doctor.fonts()
    assert found.state == WARNING
    assert "漢" in found.text
    monkeypatch.setattr(fonts, "_letters", lambda path: frozenset(range(0x20000)))
    assert doctor.fonts().state == OK


@pytest.mark.slow
def test_the_whole_list_and_its_exit_status(tmp_path: Path) -> None:
    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"} | variables
        command = [sys.executable, "-m", "doctogres.doctor"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    done = run(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db")
    *lines, last = done.stdout.splitlines()
    assert {line.split()[0] for line in lines} <= {OK, WARNING, PROBLEM}
    assert done.returncode == (1 if any(line.startswith(PROBLEM) for line in lines) else 0)
    for what in (
        "Python",
        "packages",
        "workspace",
        "memory",
        "accelerator",
        "tracking",
        "registry",
        "weights",
        "Java",
        "fonts",
    ):
        assert any(line[9:].startswith(what) for line in lines), done.stdout
    assert last.endswith("warnings")
    unreachable = run(MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert unreachable.returncode == 1
    assert "problem  tracking" in unreachable.stdout
    assert "Traceback" not in unreachable.stdout + unreachable.stderr
    secret = run(MLFLOW_TRACKING_URI="postgresql://u:hunter2@127.0.0.1:9/m")
    assert (secret.returncode, "hunter2" in secret.stdout + secret.stderr) == (1, False)
