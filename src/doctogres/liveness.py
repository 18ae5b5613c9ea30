"""Which process something belongs to, and whether that process still lives: of runs, trials and temporary files."""

import hashlib
import os
import platform
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

GRACE: Final = 60  # seconds by which a process's start time and our clock may differ


def this_process() -> dict[str, Any]:
    """Identifies this process for `is_gone`."""
    return {"host": platform.node(), "machine": machine(), "process": os.getpid(), "time": time.time()}


def is_gone(owner: Mapping[str, Any]) -> bool:
    """Whether the process is known to be dead; False if this machine cannot tell."""
    return owner["machine"] == machine() and is_dead(owner["process"], since=owner["time"])


def is_dead(process_id: int, *, since: float) -> bool:
    """Whether the process of this machine that had the id at the time `since` (seconds of the clock) is dead."""
    import psutil  # the served model writes nothing, and its environment lacks it

    try:
        process = psutil.Process(process_id)
        # A process that started well after the record was written has merely reused the process id.
        return process.status() == psutil.STATUS_ZOMBIE or process.create_time() > since + GRACE
    except psutil.NoSuchProcess:
        return True


@cache
def machine() -> str:
    """The scope in which process ids are unique: this boot of the machine and, on it, this container."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return platform.node()


def process_name() -> str:
    """This machine and process as a part of a file's name, for `owner_of`."""
    return f"{_machine_digits()}-{os.getpid()}"


def is_left_over(name: str, *, since: float) -> bool:
    """Whether a `process_name` is that of a dead process; of another machine's nothing is known.

    Args:
        name: as `process_name` made it.
        since: when the process was seen last, in seconds of the clock: the time of the file that bears the name.
    """
    of_machine, _, process = name.partition("-")
    return of_machine == _machine_digits() and process.isdigit() and is_dead(int(process), since=since)


@cache
def _machine_digits() -> str:
    return hashlib.sha256(machine().encode()).hexdigest()[:8]
