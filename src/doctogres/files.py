"""The project's own files: the workspace, atomic replacement, and content digests."""

import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from doctogres.disk import check_space, naming_full_disk, nearest
from doctogres.errors import DoctogresError
from doctogres.liveness import NAME, is_left_over, process_name

WORKSPACE_VARIABLE: Final = "DOCTOGRES_WORKSPACE"
TEMPORARY: Final = "doctogres-"
OWNED: Final = re.compile(rf"\..+\.({NAME})\.partial(?:-journal|-wal|-shm)?|{TEMPORARY}({NAME})-.+")
UMASK_VARIABLE: Final = "DOCTOGRES_UMASK"
PRIVATE: Final = "077"  # files for their owner only


def workspace() -> Path:
    """The folder of what commands need again: `.doctogres`, or DOCTOGRES_WORKSPACE if set; see docs/storage.md."""
    return Path(os.environ.get(WORKSPACE_VARIABLE) or ".doctogres").resolve()


def keep_private() -> None:
    """Sets this process's umask, so that what it writes is readable by its user only, or as DOCTOGRES_UMASK says.

    A workspace in its usual place that others may read, because an earlier version made it, is closed to them.

    Raises:
        DoctogresError: see `chosen_umask`.
    """
    umask = chosen_umask()
    os.umask(umask)
    folder = workspace()
    if not os.environ.get(WORKSPACE_VARIABLE) and folder.is_dir():
        mode = stat.S_IMODE(folder.stat().st_mode)
        if mode & umask and is_own(folder):
            folder.chmod(mode & ~umask)


def is_own(path: Path) -> bool:
    """Whether a path belongs to the user of this process; always true on Windows, which has no such number."""
    return os.name != "posix" or path.lstat().st_uid == os.geteuid()


def chosen_umask() -> int:
    """The umask for files with patients' data: that of DOCTOGRES_UMASK, or 077.

    Raises:
        DoctogresError: DOCTOGRES_UMASK is not an octal number that lets the owner read and write.
    """
    given = os.environ.get(UMASK_VARIABLE) or PRIVATE
    if not re.fullmatch("0?0[0-7]{2}", given):
        raise DoctogresError(
            f"{UMASK_VARIABLE}={given}: not a umask; give 077 (files for you only), 027 (your group reads), 007 (your group "
            "reads and writes) or 022 (everybody reads)"
        )
    return int(given, 8)


def temporary_folder() -> Path:
    """The folder of temporary files.

    Not `tempfile.gettempdir()`, which is another folder for a process that starts while the disk is full.
    """
    return Path(os.environ.get("TMPDIR") or ("/tmp" if os.name == "posix" else tempfile.gettempdir()))


def looked_for(path: str | Path) -> str:
    """Says that a path does not exist, and of a relative one where it was looked for."""
    if Path(path).expanduser().is_absolute():
        return f"{path} does not exist"
    return f"{path} does not exist: it was looked for at {Path(path).absolute()}"


def closed_above(folder: Path) -> Path | None:
    """What keeps this process from making a folder or writing in it, it or the nearest path above; None if nothing does."""
    above = nearest(folder)
    return None if above.is_dir() and os.access(above, os.W_OK | os.X_OK) else above


@contextmanager
def partial_beside(path: Path, *, needed: int = 0) -> Iterator[Path]:
    """A temporary path beside `path`, for a file or a folder that is renamed when it is complete.

    Whatever is left there when the block ends is removed. A killed process leaves `.NAME.PROCESS.partial` behind, which
    the next command sweeps.

    Args:
        path: the final path.
        needed: bytes that will be written, as far as they are known.

    Raises:
        DiskFullError: the disk has less space, or is full during the block.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    partial = path.with_name(f".{path.name}.{process_name()}.partial")
    _remove(partial)  # left by an earlier process with the same id
    check_space(path.parent, needed)
    try:
        with naming_full_disk(path.parent, partial=partial, needed=needed):
            yield partial
    finally:
        _remove(partial)


@contextmanager
def replacing(path: Path, *, needed: int = 0) -> Iterator[Path]:
    """A temporary path for a file that replaces `path` if the block succeeds, and is removed otherwise.

    See `partial_beside` for `needed` and for what is raised if the disk is full.
    """
    with partial_beside(path, needed=needed) as partial:
        yield partial
        partial.replace(path)


@contextmanager
def temporary_files() -> Iterator[Path]:
    """A folder for all temporary files of this process, whoever makes them; removed with them when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{process_name()}-"))
    before = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        _remove(folder)


def sweep(folder: Path) -> int:
    """Removes what dead processes of this machine left in a folder: unfinished and temporary files; returns how many."""
    swept = 0
    for entry in os.scandir(folder) if folder.is_dir() else ():
        owner = OWNED.fullmatch(entry.name)
        with suppress(OSError):  # another process sweeps too, or the entry is somebody else's
            if owner and is_left_over(owner[1] or owner[2]):
                _remove(Path(entry.path))
                swept += 1
    return swept


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def digest(content: bytes | str, *, algorithm: str = "sha256", length: int | None = 16) -> str:
    """The first `length` hexadecimal digits of the content's digest, or all if None; text is encoded as UTF-8."""
    data = content.encode() if isinstance(content, str) else content
    return hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()[:length]


def digest_of(*parts: object) -> str:
    """A short, stable digest of JSON-serialisable values."""
    return digest(json.dumps(parts, sort_keys=True, default=str))


def file_digest(path: Path, *, algorithm: str = "sha256", length: int | None = 16) -> str:
    """`digest` of a file's content.

    Raises:
        DoctogresError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()[:length]
    except OSError as error:
        raise DoctogresError(f"{path} cannot be read: {error.strerror or error}") from error
