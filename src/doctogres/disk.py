"""Full disks: found before a long write, or told from the many errors that libraries raise on one."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from doctogres.errors import DiskFullError, causes

FULL: Final = (errno.ENOSPC, errno.EDQUOT)
NO_PLACE: Final = "No usable temporary directory"  # Python says so if nothing can be written, for whatever reason
TRIFLE: Final = 4096  # bytes
# SQLite, safetensors, shutil and numpy leave only words; MLflow and Optuna pass them on.
WORDS: Final = re.compile(
    r"database or disk is full|No space left on device|Disk quota exceeded|requested and \d+ written"
)


def check_space(folder: Path, needed: int) -> None:
    """Refuses a write that the disk has no space for.

    Args:
        folder: where it goes; it need not exist yet.
        needed: its bytes, as far as they are known.

    Raises:
        DiskFullError: names the folder, the space needed and what is free.
    """
    if needed > (free := free_space(folder)):
        raise _error(folder, needed, free)


@contextmanager
def naming_full_disk(*folders: Path, partial: Path | None = None, needed: int = 0) -> Iterator[None]:
    """Turns the error of a full disk in the block into a DiskFullError; other errors pass.

    Args:
        folders: where the block writes; the one with the least space left is named, unless the error itself names one.
        partial: an unfinished file or folder that is removed after the block; its space counts as free.
        needed: bytes that the block writes there, as far as they are known.

    Raises:
        DiskFullError: names the folder, the space needed and what is free.
    """
    try:
        yield
    except Exception as error:  # every library has its own
        found = list(causes(error))
        if told := next((cause for cause in found if isinstance(cause, DiskFullError)), None):
            raise told from told.__cause__  # and not what the store said when it was to record the failure
        targets = [Path(cause.filename2).parent for cause in found if isinstance(cause, OSError) and cause.filename2]
        folder = min(targets or folders, key=free_space)
        free = free_space(folder)
        if not any(_is_full(cause, free) for cause in found):
            raise
        raise _error(folder, needed, free + _occupied(partial)) from error


def free_space(folder: Path) -> int:
    """Bytes that this user may still write on the disk of a folder, or of the nearest one above it that exists."""
    return shutil.disk_usage(nearest(folder)).free


def nearest(folder: Path) -> Path:
    """A folder, or the nearest one above it that exists; what lies in a folder that is closed to this user does not."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.exists(path))


def _is_full(error: BaseException, free: int) -> bool:
    if NO_PLACE in str(error):
        return free < TRIFLE
    return (isinstance(error, OSError) and error.errno in FULL) or bool(WORDS.search(str(error)))


def _error(folder: Path, needed: int, free: int) -> DiskFullError:
    least = size_text(needed) if needed > free else f"more than {size_text(free)}"
    return DiskFullError(
        f"{folder}: the disk, or your quota on it, is full: {least} needed, {size_text(free)} free; make room there and run "
        "the same command again: it continues from what is kept"
    )


def size_text(size: float) -> str:
    """A number of bytes as people write it: `93.8 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _occupied(path: Path | None) -> int:
    """Bytes on the disk of a file or of a folder's files; 0 if there is none."""
    occupied = 0
    for each in [path, *path.rglob("*")] if path else []:
        with suppress(OSError):
            occupied += os.lstat(each).st_blocks * 512
    return occupied
