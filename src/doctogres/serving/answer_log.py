"""The writer of the answer log: a file of lines per process, begun anew every day (UTC) and at 16 MiB.

A request's rows are appended by one call before its answer is sent, so what a client got is in the log even if the server
is killed. Nothing that happens to the log's disk fails an answer: rows that cannot be written are counted.
"""

import logging
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Final

from doctogres.files import chosen_umask
from doctogres.locks import lock
from doctogres.serving.answers import as_line

FOLDER_VARIABLE: Final = "DOCTOGRES_ANSWER_LOG"
NAMES_VARIABLE: Final = "DOCTOGRES_ANSWER_LOG_NAMES"
TRIES: Final = 10  # files that another process may lock before this one can
LARGEST: Final = 16 * 2**20  # bytes
PAUSE: Final = 10.0  # seconds without another try after a disk failed
SLOW: Final = 1.0  # seconds; a disk on which a write takes longer has failed
logger: Final = logging.getLogger(__name__)


class AnswerLog:
    """Appends rows to files in a folder. Threads may share it; a forked process begins a file of its own."""

    _file: int | None

    def __init__(self, folder: Path):
        """Makes the folder, but none above it: the place of a disk that is not mounted must not be written to."""
        self.folder = folder
        self.lost = 0  # rows
        self._failing = False
        self._fresh()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._fresh)
        try:
            self._open()
        except OSError as error:
            self._fail(str(error))

    def append(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Writes the rows; returns how many are lost because that was not possible."""
        content = "".join(map(as_line, rows)).encode()
        lost = 0 if self._appended(content) else len(rows)
        self.lost += lost
        return lost

    def finish_file(self) -> None:
        """Closes the file, if there is anything in it."""
        with self._lock:
            if self._file is not None and os.fstat(self._file).st_size:
                self._close()

    def _appended(self, content: bytes) -> bool:
        if time.monotonic() < self._resume:
            return False
        if not self._lock.acquire(timeout=SLOW):
            self._fail("another write hangs")
            return False
        try:
            began = time.monotonic()
            self._write(content)
            if (took := time.monotonic() - began) > SLOW:
                self._fail(f"a write took {took:.1f} s")
            elif self._failing:
                self._failing = False
                logger.warning("%s: answers are logged again; %d rows are missing", self.folder, self.lost)
        except OSError as error:
            self._fail(str(error))
            return False
        finally:
            self._lock.release()
        return True

    def _write(self, content: bytes) -> None:
        file, length = self._current()
        try:
            while content:
                content = content[os.write(file, content) :]
        except OSError:
            self._cut(file, length)
            raise

    def _current(self) -> tuple[int, int]:
        """The open file and its length; another one if it is full, of yesterday, or was removed."""
        if self._file is not None:
            status = os.fstat(self._file)
            if status.st_nlink and status.st_size < LARGEST and self._day == _now()[:8]:
                return self._file, status.st_size
        return self._open(), 0

    def _open(self) -> int:
        self._close()
        umask = chosen_umask()
        with suppress(FileExistsError):
            self.folder.mkdir(0o777 & ~umask)
        for _ in range(TRIES):
            now = _now()
            path = self.folder / f"answers-{now}-{secrets.token_hex(4)}.jsonl"
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o666 & ~umask)
            try:
                lock(self._file)  # until it is closed: not complete yet
            except BlockingIOError:  # another worker, which copies complete files away, was just looking at it
                self._close()
                continue
            except OSError:  # a file system without locks
                pass
            self._day = now[:8]
            return self._file
        raise OSError(f"{path} is locked by another process as soon as it is made")

    def _cut(self, file: int, length: int) -> None:
        """Removes a half-written row, or else leaves it as the last one of its file, where the reader ignores it."""
        try:
            os.ftruncate(file, length)
        except OSError:
            self._close()

    def _close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.close(self._file)
        self._file = None

    def _fail(self, problem: str) -> None:
        self._resume = time.monotonic() + PAUSE
        if not self._failing:
            self._failing = True
            logger.warning(
                "%s=%s: answers are given, but not logged (%s); make the folder writable, on a local disk with free space",
                FOLDER_VARIABLE,
                self.folder,
                problem,
            )

    def _fresh(self) -> None:
        """The state of a process that has written nothing."""
        self._file = None
        self._lock, self._day, self._resume = Lock(), "", 0.0


def _now() -> str:
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
