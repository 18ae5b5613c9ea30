"""What the workspace holds, which process uses it, and what can be removed because it is made again."""

import atexit
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from doctogres.errors import DoctogresError
from doctogres.files import OWNED
from doctogres.liveness import NAME, is_left_over, process_name

DAY: Final = 86400.0  # seconds
LEASE: Final = re.compile(rf"\.in-use\.({NAME})")


@dataclass(frozen=True)
class Kind:
    """A kind of files or folders in the workspace.

    Attributes:
        name: for people.
        path: a regular expression for the path in the workspace.
        again: how it is made again; empty if it is not removed.
        spared: days after the last use in which it is not removed: nothing records that a running command uses it.
    """

    name: str
    path: str
    again: str = ""
    spared: float = 0.0


KINDS: Final = (
    Kind("pixels of patches", r"patches/(\w+-[0-9a-f]{16}\.npy|[0-9a-f]{16}\.json)", "cut from the slides"),
    Kind("pixels as older versions kept them", r"patches-[0-9a-f]{16}-\w+\.npy", "not needed any more"),
    Kind("features of frozen backbones", r"features/[0-9a-f]{24}-\w+\.npy", "computed by train and tune"),
    Kind("slides from a zip", r"[0-9a-f]{16}", "unpacked from the zip"),
    Kind("networks of train", r"networks/[0-9a-f]+\.pt"),
    Kind("states of interrupted trainings", r"networks/[0-9a-f]+\.checkpoint", "train starts again", spared=1.0),
    Kind("shares of a cohort", r"shards/.+"),
    Kind("links to a table's files", r"cohorts/.+"),
    Kind("copies of addresses", r"fetched/.+"),
    Kind("the study's database", r"optuna\.db.*"),
    Kind("answers still to be copied", r"answers/.+"),
)


@dataclass(frozen=True)
class Stored:
    """A file or folder of the workspace, its bytes, and when it was last used, in seconds since 1970."""

    path: Path
    kind: Kind
    nbytes: int
    used: float


def hold(workspace: Path, paths: Iterable[Path]) -> None:
    """Records that this process uses files or folders, given as they lie in the workspace, until it ends: they are not removed.

    Their modification time is set to now: the time of the last use. In a workspace that is full or may only be read, nothing is recorded.
    """
    lease = workspace / f".in-use.{process_name()}"
    held = list(paths)
    with suppress(OSError):
        workspace.mkdir(parents=True, exist_ok=True)
        if not lease.exists():
            atexit.register(lease.unlink, missing_ok=True)
        with lease.open("a", encoding="utf-8") as file:
            # Not resolved: a folder of caches may be a link to a larger disk.
            file.writelines(f"{path.absolute().relative_to(workspace.absolute())}\n" for path in held)
        for path in held:
            if path.exists():
                path.touch()


def held(workspace: Path) -> set[Path]:
    """What living processes use; those of other machines count as living. The records of dead ones are removed."""
    used = set[Path]()
    for lease in workspace.glob(".in-use.*"):
        owner = LEASE.fullmatch(lease.name)
        if owner and is_left_over(owner[1]):
            lease.unlink(missing_ok=True)
        elif owner:
            with suppress(FileNotFoundError):  # the process has just ended
                used |= {workspace / line for line in lease.read_text(encoding="utf-8").splitlines()}
    return used


def stored(workspace: Path) -> list[Stored]:
    """Everything in a workspace, in the order of KINDS.

    Raises:
        DoctogresError: the folder does not exist, or holds something that doctogres does not write there.
    """
    if not workspace.is_dir():
        raise DoctogresError(f"{workspace}: no such folder; give the workspace as DOCTOGRES_WORKSPACE=FOLDER")
    found: list[Stored] = []
    for path in _entries(workspace):
        with suppress(FileNotFoundError):  # a running command has just removed it
            found.append(_stored(workspace, path))
    return sorted(found, key=lambda each: (KINDS.index(each.kind), each.path))


def _entries(workspace: Path) -> Iterator[Path]:
    """The files and folders of the workspace, and those in its folders of caches; unfinished and hidden ones do not count."""
    caches = {kind.path.partition("/")[0] for kind in KINDS if "/" in kind.path}
    for path in workspace.iterdir():
        if path.name in caches and path.is_dir() and not path.is_symlink():
            yield from (inner for inner in path.iterdir() if not inner.name.startswith("."))
        elif not (path.name.startswith(".") or OWNED.fullmatch(path.name)):
            yield path


def _stored(workspace: Path, path: Path) -> Stored:
    name = path.relative_to(workspace).as_posix()
    kind = next((kind for kind in KINDS if re.fullmatch(kind.path, name)), None)
    if kind is None or path.is_symlink():
        raise DoctogresError(
            f"{workspace}: it holds {name}, which doctogres does not write, so it may not be a workspace; nothing was removed. "
            "Move that away, or give the workspace as DOCTOGRES_WORKSPACE=FOLDER"
        )
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return Stored(path, kind, sum(file.lstat().st_size for file in files if file.is_file()), path.stat().st_mtime)


def removable(found: Iterable[Stored], *, older_than: float = 0.0) -> list[Stored]:
    """What is made again when it is needed, and has not been used for `older_than` days."""
    now = time.time()
    return [each for each in found if each.kind.again and each.used <= now - DAY * max(older_than, each.kind.spared)]


def remove(each: Stored) -> None:
    """Removes a file or folder."""
    if each.path.is_dir():
        shutil.rmtree(each.path)
    else:
        each.path.unlink(missing_ok=True)
