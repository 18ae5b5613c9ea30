"""Whether a process lives: told by its machine's boot and its own start, whatever the clock says."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from doctogres import liveness
from doctogres.liveness import is_gone, is_left_over, process, process_name, this_process

Machine = Callable[..., None]


def forget() -> None:
    for known in (liveness.machine, liveness._boot, liveness._container):
        known.cache_clear()


@pytest.fixture
def switch_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Makes this process believe that it runs on another machine, boot or container, with one process of id 7."""

    def switched(
        *, host: str = "node1", card: str = "02:00", boot: str = "first", container: int = 1, start: int = 500
    ) -> None:
        files = {
            "proc/sys/kernel/random/boot_id": f"{boot}\n",
            "proc/self/stat": "",
            "proc/7/stat": f"7 (a (b) c) S {'0 ' * 18}{start} 0",
            "net/eth0/device/vendor": "",
            "net/eth0/address": card,
            "net/wlan0/device/vendor": "",
            "net/wlan0/wireless/status": "",
            "net/wlan0/address": str(time.monotonic_ns()),  # drawn anew
        }
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        (tmp_path / "proc/self/ns").mkdir(exist_ok=True)
        (tmp_path / "proc/self/ns/pid").unlink(missing_ok=True)
        (tmp_path / "proc/self/ns/pid").symlink_to(f"pid:[{container}]")
        monkeypatch.setattr(liveness, "PROC", tmp_path / "proc")
        monkeypatch.setattr(liveness, "NETWORKS", tmp_path / "net")
        monkeypatch.setattr("platform.node", lambda: host)
        forget()

    yield switched
    monkeypatch.undo()
    forget()


def ended() -> int:
    """The id of a process that has ended."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_a_process_is_gone_when_it_has_ended() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = process(child.pid)
    assert not is_gone(owner)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert is_gone(owner)
    child.wait()
    assert is_gone(owner)
    assert is_gone(this_process() | {"process": 2**40})


def test_a_clock_that_is_set_makes_no_process_look_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name = this_process(), process_name()
    before = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: before(self) + 86400)  # from the clock
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert not is_gone(owner)
    assert not is_left_over(name)


def test_a_process_with_an_inherited_number_is_another_one() -> None:
    assert is_gone(this_process() | {"start": this_process()["start"] + 1})


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        ({}, False),
        ({"start": 501}, True),
        ({"boot": "second"}, True),
        ({"boot": "second", "container": 2}, True),
        ({"container": 2, "start": 501}, False),
        ({"boot": "second", "host": "node2"}, False),
        ({"boot": "second", "card": "02:01"}, False),
    ],
    ids=["the same", "number reused", "restarted", "and in a container", "another container", "another host", "a copy"],
)
def test_what_a_machine_can_tell_of_a_process(switch_to: Machine, change: dict[str, str | int], gone: bool) -> None:
    switch_to()
    owner = process(7)
    name = "-".join(str(owner[part]) for part in liveness.NAMED)
    switch_to(**change)
    assert is_gone(owner) is gone
    assert is_left_over(name) is gone


def test_a_process_that_may_not_be_seen_counts_as_alive(switch_to: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_to()
    owner = process(7)
    (liveness.PROC / "7/stat").unlink()

    def refuse(process_id: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not is_gone(owner)


def test_records_of_earlier_versions_say_nothing() -> None:
    assert not is_gone({"host": "here", "process": 1, "time": 0.0})


def test_systems_without_proc_are_asked_through_psutil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "PROC", tmp_path)
    forget()
    try:
        assert not is_gone(this_process())
        assert is_gone(this_process() | {"start": 0})
        assert is_gone(process(ended()))
    finally:
        monkeypatch.undo()
        forget()
