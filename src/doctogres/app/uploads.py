"""The files dropped on the page: which mask belongs to which slide, as in a folder of slides."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from doctogres.errors import listed
from doctogres.slides.pairing import MASK_FOLDERS, is_mask_name, is_outlines, pairs_of

MASKS: Final = MASK_FOLDERS[0]


@dataclass(frozen=True)
class Upload:
    """A dropped file; `key` is another one for every drop."""

    name: str
    content: bytes
    key: str


@dataclass(frozen=True)
class Pair:
    """A slide with its mask, or files that are none for the reason `problem`."""

    slide_id: str
    slide: Upload | None
    mask: Upload | None
    problem: str = ""

    @property
    def key(self) -> str:
        """Another one as soon as one of the files is."""
        return "+".join([self.slide_id, *(file.key for file in (self.slide, self.mask) if file)])

    @property
    def title(self) -> str:
        """The file name of the slide, or else of the mask."""
        return next(file.name for file in (self.slide, self.mask) if file)


def paired(files: Sequence[Upload], masks: Sequence[Upload]) -> list[Pair]:
    """Every slide with its mask, if it has one, by name; and the files that belong to none.

    Args:
        files: slides, and masks that are called like their slide with `mask` before or after.
        masks: further masks, which may also be called exactly like their slide.
    """
    slides = [file for file in files if not _named_as_mask(file)]
    masks = [*filter(_named_as_mask, files), *masks]
    pairs = pairs_of([file.name for file in slides], {MASKS: [file.name for file in masks]})
    if pairs is None:
        return []
    of_path = {file.name: file for file in slides} | {f"{MASKS}/{file.name}": file for file in masks}
    found = [
        _pair(slide, _files(pairs.pictures.get(slide, ()), of_path), _files(pairs.masks.get(slide, ()), of_path))
        for slide in sorted(pairs.slides)
    ]
    return sorted(found, key=lambda pair: pair.slide is None)


def megabytes(files: Iterable[Upload]) -> float:
    """Their size in memory."""
    return sum(len(file.content) for file in files) / 2**20


def _named_as_mask(file: Upload) -> bool:
    return is_outlines(file.name) or is_mask_name(PurePosixPath(file.name).stem)


def _files(paths: Sequence[str], of_path: dict[str, Upload]) -> list[Upload]:
    return [of_path[path] for path in paths]


def _pair(slide: str, pictures: list[Upload], masks: list[Upload]) -> Pair:
    problem = ""
    if not pictures:
        problem = (
            f"no slide belongs to the mask {masks[0].name}; add its slide, or rename the mask like its slide with the "
            "word mask, as in S1.png and S1_mask.png"
        )
    for found, what in ((pictures, "slides"), (masks, "masks")):
        if len(found) > 1:
            names = listed([file.name for file in found])
            problem = f"{len(found)} {what} have the name {slide} ({names}); remove all but one, or rename them"
    return Pair(slide, pictures[0] if pictures else None, masks[0] if masks else None, problem)
