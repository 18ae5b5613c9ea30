"""Finds the slides of a cohort, a folder or a zip: their files, their labels, and what cannot be used.

    train_data/img_0000.png, train_data/mask_0000.png, ...     train_labels.csv: sample_index,label[,group]
    test_data/img_0000.png,  test_data/mask_0000.png, ...      (no labels)

That is the default; `pairing` and `listed_pairs` know other names, `labels` reads the table. Nothing is ever written into
the folder. Every picture, label and mask found gives a row, usable or not.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from doctogres.engine import map_slides
from doctogres.errors import CohortError, listed
from doctogres.files import digest, file_digest, workspace
from doctogres.progress import counted
from doctogres.remote import is_address
from doctogres.slides.archives import unpack_zip
from doctogres.slides.labels import LabelRow, LabelTable, names_masks, read_group_column, read_labels, read_names
from doctogres.slides.layout import (
    LABELS,
    LAYOUT,
    OUTLINES,
    SLIDE_SUFFIXES,
    SUFFIXES,
    TEST,
    TEST_LABELS,
    TRAINING,
    check_path,
    contents,
)
from doctogres.slides.listed_cohort import SUFFIX, linked_cohort
from doctogres.slides.listed_pairs import pairs_of_table
from doctogres.slides.names import stem_and_suffix
from doctogres.slides.pairing import Pairs, has_layout, pairs_in
from doctogres.slides.reasons import Reason, shown_name
from doctogres.slides.subgroups import AUTO, common
from doctogres.slides.table import DROPPED, KEPT
from doctogres.spreadsheets import has_controls, is_formula
from doctogres.storage import hold

FOUND_COLUMNS: Final = ("slide_id", "image", "mask", "annotations", "label", "group", "mpp", "outcome", "reason")


def open_cohort(data: str | Path, *, workspace: Path) -> Path:
    """The folder of a cohort given as a folder, a zip, a table of its files (see `listed_cohort`), or the address of one.

    A zip is unpacked once, under the workspace in a folder named by the zip's digest. A folder or zip whose only
    content is one folder is entered.

    Raises:
        CohortError: `data` is none of these, or the zip is unsafe (members outside the target, links, too large).
        DoctogresError: an address cannot be read, see `remote.local`.
    """
    path = check_path(data)
    if path.is_dir():
        return _enter(path.resolve())
    if path.suffix.lower() == SUFFIX:
        return linked_cohort(path, workspace, address=str(data) if is_address(data) else "")
    workspace = workspace.resolve()
    target = workspace / file_digest(path)
    if not target.is_dir():
        unpack_zip(path, target)
    hold(workspace, [target])
    return _enter(target)


def find_slides(
    root: Path,
    *,
    labelled: bool = True,
    ignore_columns: Collection[str] = (),
    subgroups: str = AUTO,
    annotations: str = "",
) -> pd.DataFrame:
    """A row per slide of the training part (or of the unlabelled part), sorted by slide_id.

    Columns slide_id, image, mask (POSIX paths relative to `root`), annotations (empty for a mask that is a picture), label,
    group, mpp (as the table says), outcome, reason, and of the training part those for subgroups. What cannot be used has the
    outcome `dropped` and the reason; nothing is opened but the table of labels.

    Args:
        root: the cohort's folder.
        labelled: the training part, or the test part without its labels.
        ignore_columns: label columns that look like patient columns but are not.
        subgroups: see `subgroups.chosen_keys`.
        annotations: which outlines are lesions, where masks are GeoJSON; see `geojson.read_outlines`.

    Raises:
        CohortError: the folder is not a cohort, or its labels cannot be read in one way only.
    """
    part = _part(root, TRAINING if labelled else TEST)
    if labelled:
        pairs, rows = _paired(
            root, part, read_labels(root / LABELS, ignore_columns=ignore_columns, subgroups=subgroups)
        )
    else:
        pairs, rows = _paired(root, part, read_names(root / TEST_LABELS) if pairing_files(root) else None)
    slides = sorted(pairs.slides | rows.keys())
    found = [_slide_row(slide, pairs, rows.get(slide, []), labelled=labelled) for slide in slides]
    about = dict.fromkeys(name for row in found for name in row if name not in FOUND_COLUMNS)
    table = pd.DataFrame(found, columns=[*FOUND_COLUMNS, *about], dtype=object)
    table["annotations"] = ["" if mask is None or not is_outlined(mask) else annotations for mask in table["mask"]]
    return table


def find_test_labels(
    root: Path, *, ignore_columns: Collection[str] = (), subgroups: str = AUTO
) -> dict[str, list[LabelRow]]:
    """The rows of test_labels.csv that have a label, by slide.

    Raises:
        CohortError: as in `find_slides`.
    """
    table = read_labels(root / TEST_LABELS, ignore_columns=ignore_columns, subgroups=subgroups)
    _, rows = _paired(root, _part(root, TEST), table)
    labelled = {slide: [row for row in found if row.label] for slide, found in rows.items()}
    return {slide: found for slide, found in labelled.items() if found}


def find_test_groups(root: Path) -> dict[str, str]:
    """The group of every slide of the unlabelled part, where test_labels.csv has the column `group`; else empty.

    Raises:
        CohortError: as in `find_slides`.
    """
    table = read_group_column(root / TEST_LABELS)
    if table is None:
        return {}
    _, rows = _paired(root, _part(root, TEST), table)
    return {slide: found[0].group for slide, found in rows.items() if found[0].group}


def is_outlined(mask: str) -> bool:
    """Whether a mask's path is that of a GeoJSON file."""
    return stem_and_suffix(mask)[1] == OUTLINES


def slide_files(root: Path, slides: pd.DataFrame) -> list[str]:
    """The pictures and masks of `slides` that can be read (POSIX paths relative to `root`), sorted."""
    names = {str(name) for column in ("image", "mask") for name in slides[column].dropna()}
    return sorted(name for name in names if (root / name).is_file() and os.access(root / name, os.R_OK))


def pairing_files(root: Path) -> list[str]:
    """The table that says which mask of the unlabelled part is whose, where there is one: its content counts, too."""
    return [TEST_LABELS] if names_masks(root / TEST_LABELS) else []


def file_hashes(root: Path, files: Iterable[str]) -> dict[str, str]:
    """The MD5 of each of these files (POSIX paths relative to `root`).

    Raises:
        DoctogresError: a file cannot be read.
    """
    names = sorted(set(files))
    hashes = map_slides(lambda name: file_digest(root / name, algorithm="md5", length=None), names)
    return dict(zip(names, counted(hashes, "digests of the slides", "files", len(names)), strict=True))


def content_digest(hashes: Mapping[str, str]) -> str:
    """A digest of files' names and contents, from their hashes, wherever their folder lies."""
    lines = "".join(f"{name}\0{hashes[name]}\n" for name in sorted(hashes))
    return digest(lines, length=None)


def slide_root(recorded: Path, data: str) -> Path:
    """The folder of the slides: `data` where given, else where an earlier stage saw them, as its table records."""
    if data:
        return open_cohort(data, workspace=workspace())
    if not recorded.is_dir():
        raise CohortError(f"{recorded}: the slides are no longer there; give data=FOLDER_OR_ZIP, or their address")
    return recorded


def _is_cohort(folder: Path) -> bool:
    parts = any((folder / part).is_dir() for part in (TRAINING, TEST))
    return parts or (folder / LABELS).is_file() or has_layout(folder)


def _enter(folder: Path) -> Path:
    """The folder, or the only folder in it when that one holds the cohort."""
    if _is_cohort(folder):
        return folder
    inside = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__MACOSX"))]
    return inside[0] if len(inside) == 1 and _is_cohort(inside[0]) else folder


def _part(root: Path, part: str) -> Path:
    """The folder of a part, or the cohort's own where it has no such folder and the slides lie in it."""
    if (root / part).is_dir():
        return root / part
    if names_masks(root / (LABELS if part == TRAINING else TEST_LABELS)) or has_layout(root):
        return root
    lacks = f"no {TRAINING} folder" if part == TRAINING else f"neither {TEST} nor pictures with masks"
    raise CohortError(f"{root} has {lacks} (it holds {contents(root)}): {LAYOUT}")


def _paired(root: Path, part: Path, table: LabelTable | None) -> tuple[Pairs, dict[str, list[LabelRow]]]:
    """The files of every slide of a part, and the rows of the table by slide."""
    if table and table.rows and table.names_masks:
        return pairs_of_table(table, root, part)
    pairs = pairs_in(part, "" if part == root else f"{part.name}/")
    rows = table.of_slides(pairs.slides, part.name) if table and pairs else {}
    if pairs is None or not pairs.slides:
        raise CohortError(f"{part} holds no pictures with masks (it holds {contents(part)}): {LAYOUT}")
    return pairs, rows


def _slide_row(slide: str, pairs: Pairs, rows: Sequence[LabelRow], *, labelled: bool) -> dict[str, Any]:
    pictures, masks = pairs.pictures.get(slide, []), pairs.masks.get(slide, [])
    reason = _file_reason(slide, pairs, has_label=labelled and bool(rows))
    if labelled and not reason:
        reason = _label_reason(slide, rows)
    return {
        "slide_id": slide,
        "image": pictures[0] if pictures else None,
        "mask": masks[0] if masks else None,
        "label": (rows[0].label or None) if labelled and rows else None,
        "group": (rows[0].group or None) if labelled and rows else None,
        "mpp": next((row.mpp for row in rows if row.mpp), None),
        "outcome": DROPPED if reason else KEPT,
        "reason": reason,
        **(common([row.about for row in rows]) if labelled else {}),
    }


def _file_reason(slide: str, pairs: Pairs, *, has_label: bool) -> str:
    """Why the slide cannot be used, judged by the names of its files; empty when it can."""
    if is_formula(slide) or has_controls(slide):
        return Reason.UNSAFE_NAME.because(slide=shown_name(slide))
    pictures, masks = pairs.pictures.get(slide, []), pairs.masks.get(slide, [])
    picture, mask = pairs.expected(slide)
    if not pictures:
        return Reason.MISSING_IMAGE.because(file=picture, slide=slide, has="a label" if has_label else "a mask")
    for found, what, suffixes in ((pictures, "pictures", SLIDE_SUFFIXES), (masks, "masks", SUFFIXES)):
        if len(found) > 1:
            return Reason.AMBIGUOUS_FILES.because(slide=slide, count=len(found), what=what, files=listed(found))
        suffix = stem_and_suffix(found[0])[1] if found else ""
        if found and suffix not in suffixes and not (what == "masks" and is_outlined(found[0])):
            return Reason.UNSUPPORTED_FORMAT.because(file=found[0], formats=", ".join(suffixes))
    return "" if masks else Reason.MISSING_MASK.because(file=mask)


def _label_reason(slide: str, rows: Sequence[LabelRow]) -> str:
    """Why the slide cannot be used, judged by its rows in the table of labels; empty when it can."""
    if not any(row.label for row in rows):
        blank = (
            f"has the label {rows[0].blank!r}, which counts as blank,"
            if rows and rows[0].blank
            else "has a blank label"
        )
        return Reason.UNLABELLED.because(slide=slide, where=blank if rows else "is not listed")
    said = {(row.label, row.group) for row in rows}
    if len(said) > 1:
        labels = listed(sorted(" / ".join(filter(None, line)) or "blank" for line in said))
        return Reason.CONFLICTING_LABELS.because(slide=slide, count=len(rows), labels=labels)
    return ""
