"""The patches' pixels: read from the parts of the cache, of which those that are missing are cut again from the slides."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.disk import check_space, size_text
from doctogres.engine import map_slides
from doctogres.errors import CohortError, DoctogresError
from doctogres.files import file_digest, replacing
from doctogres.patches.crops import cut_patches
from doctogres.patches.joined import JoinedPixels
from doctogres.patches.manifest import Manifest
from doctogres.patches.parts import FOLDER, Part, Piece, content_key, divided, header, part_path
from doctogres.progress import reporter
from doctogres.slides.cohort import slide_root
from doctogres.slides.opening import open_slide
from doctogres.storage import hold


@dataclass(frozen=True)
class PatchSet:
    """The kept patches of a view and their pixels, row for row."""

    table: pd.DataFrame
    pixels: JoinedPixels | npt.NDArray[np.uint8]  # (patches, size, size, 3)


def load_patches(manifest: Manifest, *, cache: Path, view: str = "", data: str = "") -> PatchSet:
    """The kept patches of a view with their pixels; parts that the cache lacks are cut again from the slides.

    Args:
        manifest: the patch manifest.
        cache: the workspace.
        view: the manifest's first view by default.
        data: folder or zip of the slides, if they have moved.

    Raises:
        DoctogresError: a part is damaged, or it is missing and its slides are missing or changed.
    """
    shown, size = view or manifest.patch.views[0], manifest.patch.patch_size
    slides = _Slides(manifest, shown)
    parts = slides.parts(cache)
    hold(cache, [part.path for part in parts])
    if missing := [part for part in parts if not part.is_there()]:
        print(_cut_again(missing, parts, cache), flush=True)
        _cut_parts(missing, slides, slide_root(manifest.root, data), cache)
    return PatchSet(slides.table, JoinedPixels(parts, slides.places(parts), size))


def view_parts(manifest: Manifest, view: str, cache: Path) -> list[Part]:
    """The parts of a view, written or not, in the order in which they were cut."""
    return _Slides(manifest, view).parts(cache)


class _Slides:
    """The kept patches of a view, slide by slide."""

    def __init__(self, manifest: Manifest, view: str):
        self.manifest, self.view, self.table = manifest, view, manifest.kept_of(view)
        self.boxes = self.table[["x", "y", "width", "height", "area"]].to_numpy(np.int64)
        names = self.table["slide_id"].to_numpy(str)
        starts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist(), len(names)]
        self.rows = {str(names[start]): (start, stop) for start, stop in pairwise(starts)}

    def boxes_of(self, piece: Piece) -> npt.NDArray[np.int64]:
        start, _ = self.rows[piece.slide]
        return self.boxes[start + piece.first : start + piece.last]

    def parts(self, cache: Path) -> list[Part]:
        """The parts of the view, from the order in which its slides were cut."""
        size = self.manifest.patch.patch_size
        pieces = [part for share in self._shares(cache) for part in divided(self._counts(share), size)]
        return [Part(self._path(cache / FOLDER, of_part), tuple(of_part), size) for of_part in pieces]

    def places(self, parts: Sequence[Part]) -> npt.NDArray[np.int64]:
        """Of every row of the table, the number of its patch when the parts' patches are counted through."""
        places, count = np.empty(len(self.table), np.int64), 0
        for piece in (piece for part in parts for piece in part.pieces):
            start, number = self.rows[piece.slide][0], piece.last - piece.first
            places[start + piece.first : start + piece.last] = np.arange(count, count + number)
            count += number
        return places

    def _shares(self, cache: Path) -> list[list[str]]:
        """The slides as they were cut: in one share or, if several commands cut them, in theirs."""
        path = _shares_file(self.manifest, cache)
        if not path.is_file():
            return [list(self.rows)]
        recorded: list[list[str]] = json.loads(path.read_text(encoding="utf-8"))
        if sorted(slide for share in recorded for slide in share) != sorted(self.manifest.images):
            raise DoctogresError(
                f"{path}: its slides are not those of the patch manifest; delete the file and run again"
            )
        return recorded

    def _counts(self, share: Sequence[str]) -> Iterator[tuple[str, int]]:
        for slide in share:
            start, stop = self.rows.get(slide, (0, 0))
            yield slide, stop - start

    def _path(self, folder: Path, pieces: Sequence[Piece]) -> Path:
        return part_path(folder, self.view, [(self._key(piece.slide), piece.first, piece.last) for piece in pieces])

    def _key(self, slide: str) -> str:
        manifest, (start, stop) = self.manifest, self.rows[slide]
        boxes, image_md5 = self.boxes[start:stop], manifest.image_md5[slide]
        return content_key(self.view, boxes, manifest.patch, image_md5, manifest.mpp.get(slide))


def record_shares(manifest: Manifest, recorded: Sequence[Sequence[str]], cache: Path) -> None:
    """Records that the slides were cut in several shares, each by one call of `cut_slides`, for those who read their parts.

    Args:
        manifest: of all slides.
        recorded: the slides of every share, in the order in which they were cut; together all of the manifest.
        cache: the workspace.
    """
    path = _shares_file(manifest, cache)
    if len(recorded) > 1:
        with replacing(path) as partial:
            partial.write_text(json.dumps([list(share) for share in recorded]), encoding="utf-8")
    else:
        path.unlink(missing_ok=True)


def _shares_file(manifest: Manifest, cache: Path) -> Path:
    return cache / FOLDER / f"{manifest.pixels}.json"


def _cut_again(missing: Sequence[Part], parts: Sequence[Part], cache: Path) -> str:
    size = size_text(sum(part.nbytes for part in missing))
    return f"patches: {len(missing)} of {len(parts)} parts of the pixels are missing; {size} are cut again into {cache / FOLDER}"


def _cut_parts(parts: Sequence[Part], slides: _Slides, root: Path, cache: Path) -> None:
    manifest = slides.manifest

    def cut(piece: Piece) -> npt.NDArray[np.uint8]:
        picture = _unchanged(manifest, piece.slide, root)
        opened = open_slide(picture).at(manifest.mpp.get(piece.slide))
        return cut_patches(opened, slides.boxes_of(piece), manifest.patch, slides.view)

    check_space(cache, sum(part.nbytes for part in parts))
    pieces = [piece for part in parts for piece in part.pieces]
    pixels = map_slides(cut, pieces)
    report, written = reporter("cutting again", "slides"), 0
    for part in parts:
        with replacing(part.path, needed=part.nbytes) as partial, partial.open("wb") as file:
            file.write(header(len(part), part.size))
            for _ in part.pieces:
                file.write(next(pixels).data)
                written += 1
                report(written, len(pieces))


def _unchanged(manifest: Manifest, slide: str, root: Path) -> Path:
    """The picture of a slide, if it is there and the one that was cut."""
    picture = root / manifest.images[slide]
    if not picture.is_file():
        raise CohortError(
            f"{slide}: {picture} does not exist, and the pixels are not cached on this machine; give data=FOLDER"
        )
    if file_digest(picture, algorithm="md5", length=None) != manifest.image_md5[slide]:
        raise CohortError(f"{slide}: {picture} has changed since it was cut; run `patch` again, or give data=FOLDER")
    return picture
