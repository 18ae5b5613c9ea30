"""Which process something belongs to, and whether that process still lives: of runs, trials and temporary files.

A process is told by what setting a clock does not change: its machine's boot, its process id, and when in that boot it began.
"""

import hashlib
import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

PROC: Final = Path("/proc")
NETWORKS: Final = Path("/sys/class/net")
NAME: Final = r"[0-9a-f]{8}-[0-9a-f]{8}-\d+-\d+-\d+"  # a `process_name`
HIDDEN: Final = -1
NAMED: Final = ("machine", "boot", "container", "process", "start")  # what it consists of


def this_process() -> dict[str, Any]:
    """Identifies this process for `is_gone`."""
    return process(os.getpid())


def process(process_id: int) -> dict[str, Any]:
    """Identifies a process of this machine for `is_gone`."""
    return {
        "host": platform.node(),  # for people
        "machine": machine(),
        "boot": _boot(),
        "container": _container(),
        "process": process_id,
        "start": _start(process_id),
    }


def is_gone(owner: Mapping[str, Any]) -> bool:
    """Whether the process is known to be dead, by its end or its machine's restart; False if this machine cannot tell."""
    if owner.get("boot") != _boot():
        return owner.get("machine") == machine()
    if owner["container"] != _container():  # its process ids are not ours
        return False
    began = _start(owner["process"])
    return began is None or began not in (owner["start"], HIDDEN)


def process_name(process_id: int | None = None) -> str:
    """A process, by default this one, as a part of a file's name, for `is_left_over`."""
    known = process(process_id or os.getpid())
    return "-".join(str(known[part]) for part in NAMED)


def is_left_over(name: str) -> bool:
    """Whether a `process_name` is that of a dead process; of another machine's nothing is known."""
    parts = [*name.split("-")[:2], *map(int, name.split("-")[2:])]
    return is_gone(dict(zip(NAMED, parts, strict=True)))


def _start(process_id: int) -> int | None:
    """When a process began, as the kernel counts; None if it is dead, HIDDEN if it lives but is not ours to see."""
    if not (PROC / "self/stat").exists():
        return _start_without_proc(process_id)
    try:
        # The second field, the program's name in parentheses, may itself contain spaces and parentheses.
        fields = (PROC / f"{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return HIDDEN if _answers(process_id) else None
    return None if fields[0] in "ZX" else int(fields[19])  # zombies have ended


def _answers(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _start_without_proc(process_id: int) -> int | None:
    import psutil  # only here: most systems do without

    try:
        found = psutil.Process(process_id)
        return None if found.status() == psutil.STATUS_ZOMBIE else round(found.create_time() * 1000)
    except psutil.AccessDenied:
        return HIDDEN
    except psutil.NoSuchProcess:
        return None


@cache
def machine() -> str:
    """This machine before and after a restart. Copies of a virtual machine differ in the addresses of their network cards."""
    return _digits(platform.node(), _content(Path("/etc/machine-id")), *sorted(_built_in_addresses()))


def _built_in_addresses() -> list[str]:
    cards = [
        card for card in NETWORKS.glob("*/device") if not (card.parent / "wireless").exists()
    ]  # these draw new ones
    return [_content(card.parent / "address") for card in cards if "/usb" not in str(card.resolve())]


@cache
def _boot() -> str:
    return _digits(_content(PROC / "sys/kernel/random/boot_id"))


@cache
def _container() -> int:
    """The scope within a boot in which process ids are unique."""
    try:
        return int(os.readlink(PROC / "self/ns/pid").strip("pid:[]"))
    except OSError:
        return 0


def _content(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # not on this system
        return ""


def _digits(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]
