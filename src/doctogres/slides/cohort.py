"""Finds the slides of a cohort (a folder or a zip in the challenge's layout) and keeps the cohort table.

    train_data/img_0000.png, train_data/mask_0000.png, ...     train_labels.csv: sample_index,label[,group]
    test_data/img_0000.png,  test_data/mask_0000.png, ...      (no labels)

Nothing is ever written into the folder. Every picture, label and mask found gives a row, usable or not.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

import pandas as pd

from doctogres.engine import map_slides
from doctogres.errors import CohortError, listed
from doctogres.files import digest, file_digest, workspace
from doctogres.slides.archives import unpack_zip
from doctogres.slides.layout import LAYOUT, SUFFIXES, check_path
from doctogres.slides.reasons import Reason
from doctogres.slides.table import DROPPED, KEPT

FOUND_COLUMNS: Final = ("slide_id", "image", "mask", "label", "group", "outcome", "reason")


def slide_name(sample: str) -> str:
    """The slide_id of a sample as people write it, `img_0001` or `img_0001.png`."""
    sample = sample.strip()
    known = PurePosixPath(sample).suffix.lower() in SUFFIXES
    return PurePosixPath(sample).stem if known else sample


def open_cohort(data: str | Path, *, workspace: Path) -> Path:
    """The folder of a cohort given as a folder or a zip.

    A zip is unpacked once, under the workspace in a folder named by the zip's digest. A folder or zip whose only
    content is one folder is entered.

    Raises:
        CohortError: `data` is neither, or the zip is unsafe (members outside the target, links, too large).
    """
    path = check_path(data)
    if path.is_dir():
        return _enter(path.resolve())
    target = workspace.resolve() / file_digest(path)
    if not target.is_dir():
        unpack_zip(path, target)
    return _enter(target)


def find_slides(root: Path, *, labelled: bool = True) -> pd.DataFrame:
    """A row per slide of the training part (or of the unlabelled part), sorted by slide_id.

    Columns slide_id, image, mask (POSIX paths relative to `root`), label, group, outcome, reason. What cannot be used
    has the outcome `dropped` and the reason; nothing is opened but the labels.

    Raises:
        CohortError: the folder is not a cohort, or its labels cannot be read.
    """
    folder = root / "train_data" if labelled else _unlabelled_folder(root)
    if labelled and not folder.is_dir():
        raise CohortError(f"{root} has no train_data folder (it holds {_holds(root)}): {LAYOUT}")
    labels = read_labels(root / "train_labels.csv") if labelled else {}
    files = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    pictures, masks = _by_stem(files, "img_"), _by_stem(files, "mask_")
    of_masks = {f"img_{stem.removeprefix('mask_')}" for stem in masks}
    slides = sorted(pictures.keys() | labels.keys() | of_masks)
    if not slides:
        raise CohortError(f"{folder} holds no pictures named img_* (it holds {_holds(folder)}): {LAYOUT}")
    prefix = "" if folder == root else f"{folder.name}/"
    rows = [
        _slide_row(
            slide,
            [prefix + name for name in pictures.get(slide, [])],
            [prefix + name for name in masks.get(f"mask_{slide.removeprefix('img_')}", [])],
            labels.get(slide, []),
            prefix=prefix,
            labelled=labelled,
        )
        for slide in slides
    ]
    return pd.DataFrame(rows, columns=list(FOUND_COLUMNS), dtype=object)


def slide_files(root: Path, slides: pd.DataFrame) -> list[str]:
    """The pictures and masks of `slides` that can be read (POSIX paths relative to `root`), sorted."""
    names = {str(name) for column in ("image", "mask") for name in slides[column].dropna()}
    return sorted(name for name in names if (root / name).is_file() and os.access(root / name, os.R_OK))


def file_hashes(root: Path, files: Iterable[str]) -> dict[str, str]:
    """The MD5 of each of these files (POSIX paths relative to `root`).

    Raises:
        DoctogresError: a file cannot be read.
    """
    names = sorted(set(files))
    return dict(
        zip(names, map_slides(lambda name: file_digest(root / name, algorithm="md5", length=None), names), strict=True)
    )


def content_digest(hashes: Mapping[str, str]) -> str:
    """A digest of files' names and contents, from their hashes, wherever their folder lies."""
    lines = "".join(f"{name}\0{hashes[name]}\n" for name in sorted(hashes))
    return digest(lines, length=None)


def _is_cohort(folder: Path) -> bool:
    return (folder / "train_data").is_dir() or (folder / "test_data").is_dir() or any(folder.glob("img_*"))


def _enter(folder: Path) -> Path:
    """The folder, or the only folder in it when that one holds the cohort."""
    if _is_cohort(folder):
        return folder
    inside = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__MACOSX"))]
    return inside[0] if len(inside) == 1 and _is_cohort(inside[0]) else folder


def _unlabelled_folder(root: Path) -> Path:
    if (root / "test_data").is_dir():
        return root / "test_data"
    if any(root.glob("img_*")):
        return root
    raise CohortError(f"{root} has neither test_data nor pictures named img_* (it holds {_holds(root)}): {LAYOUT}")


def _holds(folder: Path) -> str:
    return listed(sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []) or "nothing"


def _by_stem(files: list[str], prefix: str) -> dict[str, list[str]]:
    stems: dict[str, list[str]] = {}
    for name in files:
        if name.startswith(prefix):
            stems.setdefault(PurePosixPath(name).stem, []).append(name)
    return stems


def read_labels(path: Path) -> dict[str, list[tuple[str, str]]]:
    """The (label, group) of every line of a table of labels, by slide; both are empty where the line has none.

    Raises:
        CohortError: there is no such table, or it cannot be read.
    """
    if not path.is_file():
        raise CohortError(f"{path.parent} has no {path.name} (it holds {_holds(path.parent)}): {LAYOUT}")
    try:
        lines = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # pandas' parser and decoding errors are ValueErrors
        raise CohortError(
            f"{path} is not a readable CSV ({error}); save it with the columns sample_index,label"
        ) from error
    lines.columns = lines.columns.str.strip()
    if missing := [column for column in ("sample_index", "label") if column not in lines.columns]:
        raise CohortError(
            f"{path} lacks the column {missing[0]} (it has {', '.join(map(str, lines.columns))}); "
            "save it with commas and the columns sample_index,label"
        )
    groups = lines["group"].fillna("") if "group" in lines.columns else [""] * len(lines)
    labels: dict[str, list[tuple[str, str]]] = {}
    for sample, label, group in zip(lines["sample_index"], lines["label"].fillna(""), groups, strict=True):
        labels.setdefault(slide_name(str(sample)), []).append((str(label).strip(), str(group).strip()))
    return labels


def _slide_row(
    slide: str,
    pictures: list[str],
    masks: list[str],
    labels: list[tuple[str, str]],
    *,
    prefix: str,
    labelled: bool,
) -> dict[str, str | None]:
    label, group = labels[0] if labels else ("", "")
    reason = _found_reason(slide, pictures, masks, labels, prefix=prefix, labelled=labelled)
    return {
        "slide_id": slide,
        "image": pictures[0] if pictures else None,
        "mask": masks[0] if masks else None,
        "label": label or None,
        "group": group or None,
        "outcome": DROPPED if reason else KEPT,
        "reason": reason,
    }


def _found_reason(
    slide: str,
    pictures: list[str],
    masks: list[str],
    labels: list[tuple[str, str]],
    *,
    prefix: str,
    labelled: bool,
) -> str:
    """Why the slide cannot be used, judged by names and labels alone; empty when it can."""
    if not pictures:
        has = "a label" if labels else "a mask"
        return Reason.MISSING_IMAGE.because(file=f"{prefix}{slide}.png", slide=slide, has=has)
    for found, what in ((pictures, "pictures"), (masks, "masks")):
        if len(found) > 1:
            return Reason.AMBIGUOUS_FILES.because(slide=slide, count=len(found), what=what, files=", ".join(found))
        if found and PurePosixPath(found[0]).suffix.lower() not in SUFFIXES:
            return Reason.UNSUPPORTED_FORMAT.because(file=found[0], formats=", ".join(SUFFIXES))
    if not masks:
        return Reason.MISSING_MASK.because(file=f"{prefix}mask_{slide.removeprefix('img_')}.png")
    if not labelled:
        return ""
    spellings = sorted({label for label, _ in labels} - {""})
    if not spellings:
        where = "has a blank label" if labels else "is not listed"
        return Reason.UNLABELLED.because(slide=slide, where=where)
    if len(set(labels)) > 1:
        listed = ", ".join(sorted({" / ".join(filter(None, line)) or "blank" for line in labels}))
        return Reason.CONFLICTING_LABELS.because(slide=slide, count=len(labels), labels=listed)
    return ""


def slide_root(recorded: Path, data: str) -> Path:
    """The folder of the slides: `data` where given, else where an earlier stage saw them, as its table records."""
    if data:
        return open_cohort(data, workspace=workspace())
    if not recorded.is_dir():
        raise CohortError(f"{recorded}: the slides are no longer there; give data=FOLDER_OR_ZIP")
    return recorded
