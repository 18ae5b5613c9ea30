"""What a folder of slides holds, whatever its layout: pictures, their masks, labels, patients, and what is to be fixed.

Files are told apart by their names and headers; nothing is decoded. `clean` looks at the pixels.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from doctogres.errors import CohortError
from doctogres.progress import counted
from doctogres.slides.formats import ImageError, read_header
from doctogres.slides.labels import IMAGE, LABEL, MASK
from doctogres.slides.layout import OTHER_PICTURES, OUTLINES, SCANNER_SUFFIXES, SLIDE_SUFFIXES, SUFFIXES
from doctogres.slides.levels import size_in_regions
from doctogres.slides.listed_cohort import PART, SLIDE, TEST_PART, TRAIN_PART
from doctogres.slides.names import slide_name
from doctogres.slides.pairing import MASK_NAME, is_mask_name
from doctogres.slides.pyramid import MASK_REDUCTION
from doctogres.slides.reasons import Reason, written
from doctogres.slides.scale import Size, factor
from doctogres.slides.spelling import folded
from doctogres.slides.survey_tables import GROUP, TEST_FOLDERS, TRAIN_FOLDERS, FoundSlide, part_of, read_tables

MASK_FOLDERS: Final = frozenset(
    (
        "mask",
        "masks",
        "label",
        "labels",
        "annotation",
        "annotations",
        "segmentation",
        "segmentations",
        "gt",
        "ground_truth",
    )
)
PICTURE_FOLDERS: Final = frozenset(("image", "images", "img", "imgs", "picture", "pictures", "slide", "slides"))
COLUMNS: Final = (SLIDE, IMAGE, MASK, LABEL, GROUP, PART)


@dataclass(frozen=True)
class Survey:
    """What a folder holds.

    Attributes:
        root: the folder.
        slides: sorted by slide_id.
        problems: slide or file, and the reason as text.
        labels_from: the table's path, or `folders`; empty without labels.
        group_from: the column of patients; empty without one.
        about: further columns of the table.
    """

    root: Path
    slides: Sequence[FoundSlide]
    problems: Sequence[tuple[str, str]]
    labels_from: str = ""
    group_from: str = ""
    about: Sequence[str] = ()

    def counts(self) -> dict[str, str]:
        """What was understood, a line each."""
        formats = Counter(PurePosixPath(slide.image).suffix.lower().removeprefix(".") for slide in self.slides)
        masks = Counter(
            PurePosixPath(slide.mask).suffix.lower().removeprefix(".") for slide in self.slides if slide.mask
        )
        labels = Counter(slide.label for slide in self.slides if slide.label)
        groups = {slide.group for slide in self.slides if slide.group}
        tests = sum(slide.part == TEST_PART for slide in self.slides)
        return {
            "slides": f"{len(self.slides)} ({_listed(formats)})" + (f", {tests} of them test slides" if tests else ""),
            "masks": f"{masks.total()} ({_listed(masks)})" if masks else "none",
            "labels": f"{_listed(labels)}; from {self.labels_from}" if labels else "none",
            "patients": f"{len(groups)}; from the column {self.group_from}"
            if groups
            else "unknown: every slide counts as one",
        }


def survey(folder: Path) -> Survey:
    """Looks at a folder.

    Raises:
        CohortError: it holds no pictures, or several tables could hold the labels.
    """
    root = folder.resolve()
    files = [path for path in _walked(root) if not PurePosixPath(path).name.startswith(".")]
    pictures = [path for path in files if PurePosixPath(path).suffix.lower() in SLIDE_SUFFIXES]
    slides = _slides([path for path in pictures if not _is_mask(path)])
    if not slides:
        raise CohortError(
            f"{folder} holds no pictures of slides ({len(files)} other files); give the folder that they lie in"
        )
    masks = [path for path in pictures if _is_mask(path)] + [path for path in files if path.lower().endswith(OUTLINES)]
    problems = [(path, Reason.UNSUPPORTED_FORMAT.because(file=path, formats=", ".join(SLIDE_SUFFIXES))) for path in files
                if PurePosixPath(path).suffix.lower() in OTHER_PICTURES]  # fmt: skip
    problems += _give_masks(slides, masks)
    labels_from, group_from, about, of_table = read_tables(root, files, slides)
    problems += of_table
    if not labels_from and _label_by_folder(slides):
        labels_from = "folders"
    if not labels_from:  # nothing to train on
        slides = [replace(slide, part=TEST_PART) for slide in slides]
    looked_at = counted(slides, "looking at the files", "slides", len(slides))
    problems += [problem for slide in looked_at for problem in _problems(root, slide)]
    return Survey(root, slides, problems, labels_from, group_from, about)


def _walked(root: Path) -> list[str]:
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        found += [(Path(folder) / name).relative_to(root).as_posix() for name in names]
    return sorted(found)


def _is_mask(path: str) -> bool:
    """Whether a picture is a mask by its name or by a folder that it lies in."""
    *folders, _ = PurePosixPath(path).parts
    return is_mask_name(PurePosixPath(path).stem) or any(folder.lower() in MASK_FOLDERS for folder in folders)


def _slides(pictures: Sequence[str]) -> list[FoundSlide]:
    """A slide per picture, called like it; where several of a part are called so, their folders stand before."""
    own = {path: slide_name(PurePosixPath(path).name) for path in pictures}
    shared = Counter((part_of(path), name) for path, name in own.items())
    names = {
        path: name if shared[part_of(path), name] == 1 else "_".join([*PurePosixPath(path).parent.parts, name])
        for path, name in own.items()
    }
    return [
        FoundSlide(names[path], path, part=part_of(path))
        for path in sorted(pictures, key=lambda path: (part_of(path), names[path]))
    ]


def _place(path: str) -> tuple[str, ...]:
    """The folders of a file but for those that only say what kind it is."""
    return tuple(
        folder.casefold()
        for folder in PurePosixPath(path).parts[:-1]
        if folder.lower() not in MASK_FOLDERS | PICTURE_FOLDERS
    )


def _keys(path: str, *, mask: bool) -> set[str]:
    """The names by which a picture and its mask are alike."""
    stem = PurePosixPath(path).stem
    if PurePosixPath(stem).suffix.lower() in SLIDE_SUFFIXES:  # a.svs.geojson
        stem = PurePosixPath(stem).stem
    if mask and (parts := MASK_NAME.fullmatch(stem)):
        stem = parts["first"] or parts["last"]
    names = {
        stem,
        *(stem.removeprefix(prefix) for prefix in ("img_", "image_")),
        *(stem.removesuffix(end) for end in ("_img", "_image")),
    }
    return {folded(name) for name in names}


def _give_masks(slides: Sequence[FoundSlide], masks: Sequence[str]) -> list[tuple[str, str]]:
    """Gives every mask to the slide of its name and folder; what is left over is a problem."""
    of_key: dict[tuple[tuple[str, ...], str], list[FoundSlide]] = {}
    for slide in slides:
        for key in _keys(slide.image, mask=False):
            of_key.setdefault((_place(slide.image), key), []).append(slide)
    problems = []
    for mask in masks:
        found = {
            slide.slide_id: slide for key in _keys(mask, mask=True) for slide in of_key.get((_place(mask), key), [])
        }
        exact = [slide for slide in found.values() if folded(PurePosixPath(slide.image).stem) in _keys(mask, mask=True)]
        fitting = exact if len(exact) == 1 else list(found.values())
        if len(fitting) == 1:
            fitting[0].masks.append(mask)
        else:
            has = f"no picture of its name, only the mask {mask}" if not fitting else f"{len(fitting)} pictures"
            problems.append((mask, f"unpaired_mask: {mask} has {has}"))
    return problems


def _label_by_folder(slides: Sequence[FoundSlide]) -> bool:
    """Takes the folders in which the slides lie for their classes, if there are at least two of them."""
    folders = [[name for name in PurePosixPath(slide.image).parts[:-1]
                if name.lower() not in PICTURE_FOLDERS | TRAIN_FOLDERS | TEST_FOLDERS] for slide in slides]  # fmt: skip
    depth = next(
        (depth for depth in range(min(map(len, folders))) if len({names[depth] for names in folders}) > 1), None
    )
    if depth is None:
        return False
    for slide, names in zip(slides, folders, strict=True):
        slide.label = names[depth]
    return True


def _problems(root: Path, slide: FoundSlide) -> list[tuple[str, str]]:
    """What is wrong with a slide, by its names and headers."""
    found = []
    if slide.part == TRAIN_PART and not slide.label:
        found.append(written(Reason.UNLABELLED, f"{slide.slide_id} has no label"))
    if not slide.masks:
        found.append(written(Reason.MISSING_MASK, f"{slide.image} has no mask of its name, and no outlines"))
    elif len(slide.masks) > 1:
        found.append(
            Reason.AMBIGUOUS_FILES.because(
                slide=slide.slide_id, count=len(slide.masks), what="masks", files=", ".join(slide.masks)
            )
        )
    found += _of_headers(root, slide)
    return [(slide.slide_id, reason) for reason in found]


def _of_headers(root: Path, slide: FoundSlide) -> list[str]:
    sizes, in_regions = list[Size](), False
    for path in filter(None, (slide.image, slide.mask)):
        suffix = PurePosixPath(path).suffix.lower()
        if not (root / path).is_file():
            return [written(Reason.MISSING_MASK, f"{path} does not exist; correct the table")]
        if suffix == OUTLINES or suffix in SCANNER_SUFFIXES or suffix not in SUFFIXES:
            continue
        try:
            if path == slide.image and (size := size_in_regions(root / path, path)):
                in_regions = True
            else:
                header = read_header((root / path).read_bytes(), path)
                size = header.width, header.height
        except (ImageError, OSError) as error:
            return [written(getattr(error, "code", Reason.UNREADABLE_FILE), error)]
        sizes.append(size)
    if len(sizes) == 2 and not _fits(*sizes, in_regions=in_regions):
        (width, height), (of_mask, mask_height) = sizes
        return [
            Reason.SIZE_MISMATCH.because(
                problem=f"{slide.mask} has {of_mask} x {mask_height} pixels, {slide.image} {width} x {height}"
            )
        ]
    return []


def _fits(size: Size, of_mask: Size, *, in_regions: bool) -> bool:
    """Whether the sizes can be those of a slide and its mask, which is laid upright, or reduced."""
    return factor(size, of_mask, MASK_REDUCTION) is not None if in_regions else size in (of_mask, of_mask[::-1])


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
