"""Which mask is whose, by the names of a folder's files.

| layout | pictures | masks | slide |
|---|---|---|---|
| the challenge's | `img_0000.png` | `mask_0000.png` | `img_0000` |
| a folder of masks | `images/a.png`, or `a.png` beside it | `masks/a.png`, also with `mask` before or after | `a` |
| equal names | `a.png` | `a_mask.png`, `mask_a.png`, `a-mask.png` | `a` |

The first layout that fits is taken. Outlines (`.geojson`) are masks, also under the picture's own name: `a.geojson`, and
`a.png.geojson`. Only files with a picture's suffix count; what lies beside them (`.json`, `.xml`,
`Thumbs.db`, `._a.png`) does not. A picture in a format without a reader counts where it is all there is of a slide.
"""

import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from doctogres.slides.layout import OTHER_PICTURES, OUTLINES, SCANNER_SUFFIXES, SLIDE_SUFFIXES, SUFFIXES
from doctogres.slides.names import PREFIX, stem_and_suffix
from doctogres.slides.spelling import folded

MASK_PREFIX: Final = "mask_"
MASK_NAME: Final = re.compile(r"masks?[_\-. ]+(?P<first>.+)|(?P<last>.+?)[_\-. ]+masks?", re.IGNORECASE)
MASK_FOLDERS: Final = ("masks", "mask")
PICTURE_FOLDERS: Final = ("images", "image", "pictures", "slides", "imgs", "img")
# What the picture may be called whose mask is mask_NAME or NAME_mask.
FORMS: Final = ("{}", "img_{}", "image_{}", "{}_img", "{}_image")


@dataclass(frozen=True)
class Pairs:
    """The files of every slide, as POSIX paths relative to the cohort's folder.

    Attributes:
        pictures: slide -> its pictures; one where nothing is wrong.
        masks: slide -> its masks, also of slides that have no picture.
        expected: slide -> where its picture and its mask are looked for.
    """

    pictures: Mapping[str, Sequence[str]]
    masks: Mapping[str, Sequence[str]]
    expected: Callable[[str], tuple[str, str]]

    @property
    def slides(self) -> set[str]:
        """Those with a picture or a mask."""
        return set(self.pictures) | set(self.masks)


def pairs_in(folder: Path, prefix: str = "") -> Pairs | None:
    """The slides of a folder by the first layout that fits; None where it holds pictures and no layout does.

    Args:
        folder: where they lie.
        prefix: of their paths, relative to the cohort's folder: `train_data/`.
    """
    subfolders = {
        entry.name: _files(folder / entry.name)
        for entry in os.scandir(folder)
        if entry.name.lower() in (*MASK_FOLDERS, *PICTURE_FOLDERS) and entry.is_dir()
    }
    return pairs_of(_files(folder), subfolders, prefix)


def pairs_of(names: Sequence[str], subfolders: Mapping[str, Sequence[str]], prefix: str = "") -> Pairs | None:
    """The same for names of files that lie in no folder of this machine, and in subfolders beside them."""
    files, outlines = _pictures(names), _outlines(names)
    stems = [stem_and_suffix(name)[0] for name in files]
    masks_folder = _only(subfolders, MASK_FOLDERS)
    masks = list(filter(is_mask_name, stems))
    as_challenge = any(stem.startswith(PREFIX) for stem in stems) and all(
        stem.startswith(MASK_PREFIX) for stem in masks
    )
    if as_challenge and (masks or outlines or not masks_folder):
        return _challenge(files, outlines, prefix)
    if masks_folder:
        return _in_folders(files, subfolders, masks_folder, prefix)
    if masks or outlines:
        return _beside_each_other(files, outlines, prefix)
    return None if files else _challenge(files, outlines, prefix)


def has_layout(folder: Path) -> bool:
    """Whether the slides of a part lie in a folder itself."""
    pairs = pairs_in(folder)
    return pairs is not None and bool(pairs.slides)


def is_mask_name(stem: str) -> bool:
    """Whether a file's name without suffix is that of a mask, `mask_a` or `a_mask`."""
    return MASK_NAME.fullmatch(stem) is not None


def is_outlines(name: str) -> bool:
    """Whether a file's name is that of outlines, which are a mask under any name."""
    return stem_and_suffix(name)[1] == OUTLINES


def picture_files(folder: Path) -> list[str]:
    """The names of the pictures in a folder, sorted; hidden files are none."""
    return _pictures(_files(folder))


def _files(folder: Path) -> list[str]:
    """The names of the files in a folder, sorted, without the hidden ones."""
    return sorted(entry.name for entry in os.scandir(folder) if not entry.name.startswith(".") and entry.is_file())


def _pictures(names: Sequence[str]) -> list[str]:
    return [name for name in names if stem_and_suffix(name)[1] in {*SLIDE_SUFFIXES, *OTHER_PICTURES}]


def _outlines(names: Sequence[str]) -> list[str]:
    return list(filter(is_outlines, names))


def _challenge(files: Sequence[str], outlines: Sequence[str], prefix: str) -> Pairs:
    pictures = _by_stem([name for name in files if name.startswith(PREFIX)], prefix)
    masks = _masks([name for name in files if name.startswith(MASK_PREFIX)], outlines, prefix)

    def expected(slide: str) -> tuple[str, str]:
        return f"{prefix}{slide}.png", f"{prefix}{MASK_PREFIX}{slide.removeprefix(PREFIX)}.png"

    def names_of(stem: str) -> list[str]:
        return [PREFIX + stem.removeprefix(MASK_PREFIX)] if stem.startswith(MASK_PREFIX) else [stem]

    return Pairs(pictures, _given(masks, pictures, names_of), expected)


def _beside_each_other(files: Sequence[str], outlines: Sequence[str], prefix: str) -> Pairs:
    pictures = _by_stem([name for name in files if not is_mask_name(stem_and_suffix(name)[0])], prefix)
    masks = _masks([name for name in files if is_mask_name(stem_and_suffix(name)[0])], outlines, prefix)
    return Pairs(
        pictures,
        _given(masks, pictures, _picture_names),
        lambda slide: (f"{prefix}{slide}.png", f"{prefix}{slide}_mask.png"),
    )


def _in_folders(files: Sequence[str], subfolders: Mapping[str, Sequence[str]], masks_folder: str, prefix: str) -> Pairs:
    where = _only(subfolders, PICTURE_FOLDERS)
    within, masks_within = f"{prefix}{where}/" if where else prefix, f"{prefix}{masks_folder}/"
    pictures = _by_stem(_pictures(subfolders[where]) if where else files, within)
    masks = _masks(_pictures(subfolders[masks_folder]), _outlines(subfolders[masks_folder]), masks_within)
    return Pairs(
        pictures,
        _given(masks, pictures, lambda stem: [*_picture_names(stem), stem]),
        lambda slide: (f"{within}{slide}.png", f"{masks_within}{slide}.png"),
    )


def _only(subfolders: Collection[str], names: Sequence[str]) -> str:
    """The only folder of one of these names, in any case; empty where there is none."""
    found = [name for name in subfolders if name.lower() in names]
    return found[0] if len(found) == 1 else ""


def _by_stem(files: Sequence[str], prefix: str) -> dict[str, list[str]]:
    """The files of each stem: a scanner's only where there is no picture, one without a reader where there is no other."""
    stems: dict[str, list[str]] = {}
    ranks = {suffix: rank for rank, suffixes in enumerate((SUFFIXES, SCANNER_SUFFIXES)) for suffix in suffixes}
    for rank in range(3):
        complete = set(stems)
        for name in files:
            stem, suffix = stem_and_suffix(name)
            if ranks.get(suffix, 2) == rank and stem not in complete:
                stems.setdefault(stem, []).append(prefix + name)
    return stems


def _masks(pictures: Sequence[str], outlines: Sequence[str], prefix: str) -> dict[str, list[str]]:
    """The masks of each stem; outlines may keep the picture's suffix before their own (`a.png.geojson`)."""
    masks = _by_stem(pictures, prefix)
    for name in outlines:
        of_picture, _ = stem_and_suffix(name)
        stem, suffix = stem_and_suffix(of_picture)
        known = suffix in {*SUFFIXES, *OTHER_PICTURES}
        masks.setdefault(stem if known else of_picture, []).append(prefix + name)
    return masks


def _picture_names(stem: str) -> list[str]:
    """What the picture of a mask may be called, the likeliest first."""
    parts = MASK_NAME.fullmatch(stem)
    return [form.format(parts["first"] or parts["last"]) for form in FORMS] if parts else [stem]


def _given(
    masks: Mapping[str, Sequence[str]], pictures: Mapping[str, Sequence[str]], names_of: Callable[[str], Sequence[str]]
) -> dict[str, list[str]]:
    """The masks of every slide: a picture of one of the names, or the first name where there is no such picture.

    A name in another Unicode form or case counts where one picture has it.
    """
    by_key: dict[str, list[str]] = {}
    for slide in pictures:
        by_key.setdefault(folded(slide), []).append(slide)
    of_slide: dict[str, list[str]] = {}
    for stem, files in masks.items():
        names = names_of(stem)
        exact = [name for name in names if name in pictures]
        alike = [slides[0] for name in names if len(slides := by_key.get(folded(name), [])) == 1]
        of_slide.setdefault([*exact, *alike, names[0]][0], []).extend(files)
    return of_slide
