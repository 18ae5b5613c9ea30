"""Thumbnails wait on the disk until the page has chosen which it shows: in memory, all of a large cohort would take gigabytes."""

import tempfile
import weakref
from contextlib import suppress
from dataclasses import replace
from typing import IO

from doctogres.cleaning.evidence import Evidence


class Thumbnails:
    """The thumbnails of slides, in a temporary file that is gone with this object."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this object
        weakref.finalize(self, _close, self._file)
        self._places: dict[str, tuple[int, int]] = {}

    def take(self, measured: Evidence) -> Evidence:
        """Keeps a slide's thumbnail; returns its measurements without it."""
        if measured.thumbnail is None:
            return measured
        self._file.seek(0, 2)
        self._places[measured.slide_id] = self._file.tell(), len(measured.thumbnail)
        self._file.write(measured.thumbnail)
        return replace(measured, thumbnail=None)

    def of(self, slide_id: str) -> bytes | None:
        """The JPEG file of a slide; None if it has no thumbnail."""
        if slide_id not in self._places:
            return None
        start, length = self._places[slide_id]
        self._file.seek(start)
        return self._file.read(length)


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # a full disk, which the write has said already
        file.close()
