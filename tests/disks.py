"""Disks of a few megabytes in memory, which a test fills and enlarges; folders that are closed to a test."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]


class SmallDisk:
    """A mounted disk; `path` is its folder."""

    def __init__(self, path: Path, kilobytes: int):
        self.path = path
        self._mount(f"size={kilobytes}k,uid={os.getuid()}")

    def resize(self, kilobytes: int) -> None:
        self._mount(f"remount,size={kilobytes}k")

    def fill(self, leave: int = 0) -> None:
        """Writes a file so large that only so many kilobytes stay free."""
        with (self.path / "filling").open("wb") as file:
            status = os.statvfs(self.path)
            file.write(b"x" * max(0, status.f_bavail * status.f_frsize - leave * 1024))

    def _mount(self, options: str) -> None:
        command = [*AS_ROOT, "mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self.path)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("needs root's right to mount a small disk")


@contextmanager
def small_disk(folder: Path, *, kilobytes: int) -> Iterator[SmallDisk]:
    """Mounts a disk of that size at the folder, which is made."""
    folder.mkdir()
    disk = SmallDisk(folder, kilobytes)
    try:
        yield disk
    finally:
        subprocess.run([*AS_ROOT, "umount", "--lazy", str(folder)], check=True)


def close(folder: Path, patcher: pytest.MonkeyPatch) -> None:
    """Makes a folder that is as if somebody else had closed it; root is refused, too, whom no permissions bind."""
    folder.mkdir()
    look, ask = os.stat, os.access

    def stat(path: Any, **how: Any) -> os.stat_result:
        if not isinstance(path, int) and folder in Path(os.fsdecode(path)).absolute().parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        return look(path, **how)

    patcher.setattr(os, "stat", stat)
    patcher.setattr(os, "access", lambda path, mode, **how: Path(path) != folder and ask(path, mode, **how))
