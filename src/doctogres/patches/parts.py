"""The parts of the pixel cache: .npy files of bounded size, each named after all that decides the pixels in it.

A part holds the patches of consecutive slides of a view. Its name follows from the slides' pictures, their boxes and the
settings, so whoever cuts these slides writes the same file, and whoever trains on them knows which files to read.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from doctogres.errors import DoctogresError
from doctogres.files import digest, digest_of, partial_beside
from doctogres.settings import PatchSettings

PART_BYTES: Final = 256 * 2**20
FOLDER: Final = "patches"  # in the workspace


class Piece(NamedTuple):
    """Patches of one slide in a part: its kept patches from `first` up to `last` (exclusive)."""

    slide: str
    first: int
    last: int


class Division:
    """Says where the next part of a view begins, slide by slide; only a slide larger than a part is split."""

    def __init__(self, size: int):
        """Takes the side of a patch in pixels."""
        self.most = max(1, PART_BYTES // pixel_bytes(1, size))  # patches
        self.filled = self.most

    def pieces(self, slide: str, count: int) -> Iterator[tuple[bool, Piece]]:
        """The pieces of the next slide, and whether a part begins with them."""
        for first in range(0, count, self.most):
            last = min(first + self.most, count)
            begins = self.filled + last - first > self.most
            self.filled = last - first + (0 if begins else self.filled)
            yield begins, Piece(slide, first, last)


def divided(counts: Iterable[tuple[str, int]], size: int) -> list[list[Piece]]:
    """The pieces of every part of a view.

    Args:
        counts: the slides in the order in which they are cut, with their numbers of kept patches.
        size: side of a patch in pixels.
    """
    division, parts = Division(size), list[list[Piece]]()
    for slide, count in counts:
        for begins, piece in division.pieces(slide, count):
            if begins:
                parts.append([])
            parts[-1].append(piece)
    return parts


def content_key(
    view: str, boxes: npt.NDArray[np.int64], settings: PatchSettings, image_md5: str, mpp: float | None
) -> str:
    """A digest of all that decides the pixels of a slide's patches.

    Args:
        view: of `PatchSettings.views`.
        boxes: (patches, 4) or more columns: x, y, width, height of the kept patches.
        settings: how they are cut.
        image_md5: MD5 of the picture.
        mpp: its microns per pixel, if known.
    """
    how = digest_of(view, settings.model_dump_json(), image_md5, mpp)
    return digest(how.encode() + boxes[:, :4].astype("<i8").tobytes())


def part_path(folder: Path, view: str, pieces: Iterable[tuple[str, int, int]]) -> Path:
    """The file of a part, given the `content_key` of each piece's slide, its first patch and its last."""
    return folder / f"{view}-{digest_of(*pieces)}.npy"


def pixel_bytes(patches: int, size: int) -> int:
    """Bytes of patches of `size` pixels."""
    return patches * size * size * 3


def header(patches: int, size: int) -> bytes:
    """The beginning of a part's file."""
    file = BytesIO()
    shape = (patches, size, size, 3)
    np.lib.format.write_array_header_2_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue()


@dataclass(frozen=True)
class Part:
    """A part of a view, written or not."""

    path: Path
    pieces: tuple[Piece, ...]
    size: int  # side of a patch in pixels

    def __len__(self) -> int:
        return sum(piece.last - piece.first for piece in self.pieces)

    @property
    def nbytes(self) -> int:
        """Bytes of the pixels."""
        return pixel_bytes(len(self), self.size)

    def is_there(self) -> bool:
        """Whether the file exists.

        Raises:
            DoctogresError: it exists, but is damaged.
        """
        expected = header(len(self), self.size)
        try:
            with self.path.open("rb") as file:
                begins, length = file.read(len(expected)), self.path.stat().st_size
        except FileNotFoundError:
            return False
        if begins != expected or length != len(expected) + self.nbytes:
            raise DoctogresError(
                f"{self.path}: damaged (it has {length} bytes and should have {len(expected) + self.nbytes}, or it begins "
                "differently); delete the file and run again"
            )
        return True


class PartWriter:
    """Writes the parts of a view, slide by slide; a part is there when it is complete, and not before."""

    def __init__(self, folder: Path, view: str, size: int):
        """Takes the cache's folder of parts, the view, and the side of a patch in pixels."""
        self.folder, self.view, self.size = folder, view, size
        self.division, self.stack = Division(size), ExitStack()
        self.pieces: list[tuple[str, int, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.__exit__(*error)  # type: ignore[arg-type]

    def write(self, key: str, pixels: npt.NDArray[np.uint8]) -> None:
        """Adds a slide: its `content_key` and the pixels of its kept patches, (patches, size, size, 3)."""
        for begins, piece in self.division.pieces(key, len(pixels)):
            if begins:
                self.finish()
                self._begin()
            self.file.write(pixels[piece.first : piece.last].data)
            self.pieces.append(piece)

    def finish(self) -> None:
        """Completes the part that was begun, if one was."""
        if not self.pieces:
            return
        self.file.seek(0)
        self.file.write(header(sum(last - first for _, first, last in self.pieces), self.size))  # as long as the first
        self.file.close()
        self.partial.replace(part_path(self.folder, self.view, self.pieces))
        self.stack.close()
        self.pieces = []

    def _begin(self) -> None:
        # The final name depends on what will be cut.
        self.partial = self.stack.enter_context(partial_beside(self.folder / f"{self.view}.npy"))
        self.file = self.stack.enter_context(self.partial.open("wb"))
        self.file.write(header(0, self.size))
