r"""Which mask is whose, as a table says it: its columns `image` and `mask` hold paths.

A path is relative to the cohort's folder or to its part's (`train_data`), or absolute. An absolute path from another
place counts from where it goes on inside the cohort: `D:\study\images\a.png` is `images/a.png`. A slide has the name of
its picture; where two pictures have the same name, their folders stand before it.
"""

import os
import re
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Final

from doctogres.errors import listed
from doctogres.slides.labels import LabelRow, LabelTable
from doctogres.slides.layout import PARTS
from doctogres.slides.names import NameProblem, slide_name, written_path
from doctogres.slides.pairing import Pairs, is_mask_name, picture_files
from doctogres.slides.spelling import folded

DRIVE: Final = re.compile("[A-Za-z]:")


def pairs_of_table(table: LabelTable, root: Path, part: Path) -> tuple[Pairs, dict[str, list[LabelRow]]]:
    """The slides that a table lists, with their rows, and the other pictures in the folders of the listed ones.

    Raises:
        CohortError: a path lies outside the cohort or may mean several files; names the row.
    """
    files = CohortFiles(root, part)
    images = [_path(table, row, row.sample, files) for row in table.rows]
    masks = [_path(table, row, row.mask, files) for row in table.rows]
    unlisted = _unlisted(root, {image for image in images if image in files.paths}, set(masks))
    names = _slide_names(table, [*images, *unlisted])
    of_slide: dict[str, dict[str, None]] = {}  # a set that keeps its order
    rows: dict[str, list[LabelRow]] = {}
    for row, image, mask in zip(table.rows, images, masks, strict=True):
        rows.setdefault(names[image], []).append(row)
        if mask in files.paths:
            of_slide.setdefault(names[image], {})[mask] = None
    wanted = {names[image]: (image, mask or "its mask") for image, mask in zip(images, masks, strict=True)}
    pictures = {names[path]: [path] for path in [*images, *unlisted] if path in files.paths}
    found = {slide: list(paths) for slide, paths in of_slide.items()}
    return Pairs(pictures, found, lambda slide: wanted.get(slide, (slide, "its mask"))), rows


class CohortFiles:
    """Finds the files of a cohort by paths as people write them."""

    def __init__(self, root: Path, part: Path):
        """Lists the files of the folder `root`; paths may also be relative to `part`."""
        self.root = root
        self.starts = list(dict.fromkeys(["", "" if part == root else f"{part.name}/"]))
        self.paths = {path.relative_to(root).as_posix() for path in _walked(root)}
        self.by_key: dict[str, list[str]] = {}
        for path in sorted(self.paths):
            self.by_key.setdefault(folded(path), []).append(path)

    def find(self, text: str) -> str | None:
        """The file of a path, relative to the cohort; None where there is none.

        Raises:
            NameProblem: the path leads out of the cohort, or fits several files.
        """
        path = written_path(text)
        absolute = path.is_absolute() or DRIVE.fullmatch(path.parts[0] if path.parts else "") is not None
        if not path.name:
            raise NameProblem("is not a file", "enter the path of a picture")
        if ".." in path.parts or (absolute and os.path.exists(path) and not self._inside(path)):
            raise NameProblem("points outside the cohort's folder", "move the files into it")
        tails = ["/".join(path.parts[start:]) for start in range(1, len(path.parts))] if absolute else [path.as_posix()]
        for tail in tails:
            if found := self._at(tail):
                return found
        return None

    def _inside(self, path: PurePosixPath) -> bool:
        return Path(path).parent.resolve().is_relative_to(self.root.resolve())

    def _at(self, tail: str) -> str | None:
        exact = [start + tail for start in self.starts if start + tail in self.paths]
        found = exact or [path for start in self.starts for path in self.by_key.get(folded(start + tail), [])]
        if len(found) > 1:
            raise NameProblem(
                f"may be {listed(found, separator=' or ')}", "write the path relative to the cohort's folder"
            )
        return found[0] if found else None


def _walked(root: Path) -> list[Path]:
    """The files below a folder; a part may be a link, as in the folder of a listed cohort."""
    tops = [root, *(root / part for part in PARTS if (root / part).is_symlink())]
    walks = chain.from_iterable(map(os.walk, tops))
    return [Path(folder) / name for folder, _, names in walks for name in names if not name.startswith(".")]


def _path(table: LabelTable, row: LabelRow, text: str, files: CohortFiles) -> str:
    """The file of a cell, or the path as it is written where there is no such file; empty for an empty cell."""
    if not text:
        return ""
    try:
        return files.find(text) or written_path(text).as_posix()
    except NameProblem as problem:
        table.sheet.refuse(row.row, f"has the path {text}, which {problem.problem}", problem.remedy)


def _unlisted(root: Path, images: Collection[str], masks: Collection[str]) -> list[str]:
    """The other pictures in the folders of `images`."""
    folders = sorted({PurePosixPath(image).parent for image in images})
    paths = [folder / name for folder in folders for name in picture_files(root / folder)]
    return [
        path.as_posix() for path in paths if path.as_posix() not in {*images, *masks} and not is_mask_name(path.stem)
    ]


def _slide_names(table: LabelTable, images: Collection[str]) -> Mapping[str, str]:
    """A name for every picture: its own without suffix, with its folders where others are called so, too."""
    paths = sorted(set(images))
    own = {path: slide_name(PurePosixPath(path).name) for path in paths}
    shared = Counter(own.values())
    names = {
        path: own[path] if shared[own[path]] == 1 else "_".join([*PurePosixPath(path).parent.parts, own[path]])
        for path in paths
    }
    if twice := [name for name, count in Counter(names.values()).items() if count > 1]:
        first = next(row for row, image in zip(table.rows, images, strict=False) if names[image] == twice[0])
        table.sheet.refuse(
            first.row, f"names a picture that would be called {twice[0]}, as another", "rename one of them"
        )
    return names
