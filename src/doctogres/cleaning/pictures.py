"""What is left of pictures waits on the disk until it is needed: in memory, that of a large cohort would take gigabytes."""

import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import IO, Final

from doctogres.cleaning.duplicates import HASH_BYTES, PictureHash
from doctogres.cleaning.evidence import Evidence

LENGTH: Final = 4  # bytes that say how long a thumbnail is


class Pictures(Mapping[str, PictureHash]):
    """The hashes of slides' pictures, by slide, and their thumbnails, in a temporary file that is gone with this object."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as this object
        weakref.finalize(self, _close, self._file)
        self._hashes: dict[str, int] = {}  # slide -> where it begins
        self._thumbnails: dict[str, int] = {}

    def take(self, measured: Evidence) -> Evidence:
        """Keeps a slide's hash and thumbnail; returns its measurements without them."""
        if measured.picture_hash is not None:
            self._hashes[measured.slide_id] = self._append(measured.picture_hash.packed())
        if measured.thumbnail is not None:
            length = len(measured.thumbnail).to_bytes(LENGTH)
            self._thumbnails[measured.slide_id] = self._append(length + measured.thumbnail)
        return replace(measured, picture_hash=None, thumbnail=None)

    def thumbnail(self, slide_id: str) -> bytes | None:
        """The JPEG file of a slide; None if it has no thumbnail."""
        if slide_id not in self._thumbnails:
            return None
        self._file.seek(self._thumbnails[slide_id])
        return self._file.read(int.from_bytes(self._file.read(LENGTH)))

    def __getitem__(self, slide_id: str) -> PictureHash:
        self._file.seek(self._hashes[slide_id])
        return PictureHash.unpacked(self._file.read(HASH_BYTES))

    def __iter__(self) -> Iterator[str]:
        return iter(self._hashes)

    def __len__(self) -> int:
        return len(self._hashes)

    def _append(self, content: bytes) -> int:
        start = self._file.seek(0, 2)
        self._file.write(content)
        return start


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # a full disk, which the write has said already
        file.close()
