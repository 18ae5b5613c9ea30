"""A cohort given as a table, cohort.csv: its files may lie anywhere below one folder, and its rows say what they are.

The other stages know folders, so a folder is made for them: the table without its paths' common start, and a link to that start.
"""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from doctogres.errors import CohortError
from doctogres.files import digest_of, replacing
from doctogres.remote import is_address, local_files
from doctogres.slides.labels import IMAGE, LABEL, MASK
from doctogres.slides.layout import LABELS, TEST, TEST_LABELS, TRAINING
from doctogres.slides.names import slide_name
from doctogres.slides.sheet import Row, Sheet, read_sheet
from doctogres.slides.spelling import visible

SLIDE: Final = "slide_id"
PART: Final = "part"
TRAIN_PART, TEST_PART = "train", "test"
TABLES: Final = {TRAIN_PART: (TRAINING, LABELS), TEST_PART: (TEST, TEST_LABELS)}
SUFFIX: Final = ".csv"


def linked_cohort(table: Path, workspace: Path, *, address: str = "") -> Path:
    """A folder in the challenge's layout whose pictures are those of a table.

    Args:
        table: a CSV with the columns image, mask, label and optionally slide_id, group, part (train or test) and others. Paths
            are absolute or relative to the table's folder, or addresses.
        workspace: where the folder is made, under a name that says what is in it.
        address: of the table, where `table` is a copy; paths are then relative to its folder.

    Raises:
        CohortError: the table cannot be read, a row's part or slide_id is wrong, or the files have no folder in common.
    """
    sheet = read_sheet(table, [(IMAGE, MASK, LABEL)])
    folder_address = address.rpartition("/")[0]
    places = {
        column: [
            (_place(stored, folder_address), _place(visible(stored), folder_address)) for stored in sheet.stored(column)
        ]
        for column in (IMAGE, MASK)
    }
    copies = local_files(place for column in places.values() for both in column for place in both if is_address(place))
    paths = {column: [_path(both, copies, table.parent) for both in found] for column, found in places.items()}
    start = _start(table, [path for column in paths.values() for path in column if path])
    parts = [_part(sheet, row, text) for row, text in zip(sheet.rows, sheet.texts(PART), strict=True)]
    _check_names(sheet, paths[IMAGE])
    key = digest_of([str(start), list(sheet.keys), [row.cells for row in sheet.rows], str(table.parent.resolve())])
    folder = workspace.resolve() / "cohorts" / key
    folder.mkdir(parents=True, exist_ok=True)
    for part, (name, file) in TABLES.items():
        rows = [number for number, of_row in enumerate(parts) if of_row == part]
        if rows:
            _write(
                folder / file,
                sheet,
                {column: [_below(path, start, name) for path in found] for column, found in paths.items()},
                rows,
            )
            _link(folder / name, start)
    return folder


def _place(text: str, folder: str) -> str:
    """A cell's path, or its address where it is one or relative to one."""
    relative = folder and text and not is_address(text) and not Path(text).is_absolute()
    return f"{folder}/{Path(text).as_posix()}" if relative else text


def _path(places: tuple[str, str], copies: Mapping[str, Path], folder: Path) -> str:
    """The file of a cell as it is stored, where there is one; else that of its visible text."""
    stored, shown = (_absolute(str(copies.get(place, place)), folder) for place in places)
    return stored if os.path.exists(stored) else shown


def _absolute(text: str, folder: Path) -> str:
    return os.path.abspath(folder / Path(text).expanduser()) if text else ""


def _start(table: Path, files: Sequence[str]) -> Path:
    """The folder that all files have in common."""
    if not files:
        raise CohortError(f"{table} lists no files; fill in its columns {IMAGE} and {MASK}")
    start = Path(os.path.commonpath([os.path.dirname(file) for file in files]))
    if start == Path(start.anchor):
        raise CohortError(f"{table}: the files have no folder in common but {start}; put them below one folder")
    return start


def _part(sheet: Sheet, row: Row, text: str) -> str:
    part = text.casefold() or TRAIN_PART
    if part not in TABLES:
        sheet.refuse(
            row, f"has the part {text}", f"write {TRAIN_PART} or {TEST_PART}, or leave it empty for {TRAIN_PART}"
        )
    return part


def _check_names(sheet: Sheet, images: Sequence[str]) -> None:
    """Refuses a slide_id that is not what the slide will be called by its picture."""
    if sheet.position(SLIDE) is None:
        return
    for row, given, image in zip(sheet.rows, sheet.texts(SLIDE), images, strict=True):
        own = visible(slide_name(os.path.basename(image)))  # as the table's texts are read
        if given and image and given != own and not given.endswith(f"_{own}"):
            sheet.refuse(
                row, f"has the slide_id {given}, but its picture is called {own}", "rename the picture, or correct it"
            )


def _below(path: str, start: Path, name: str) -> str:
    return f"{name}/{Path(path).relative_to(start).as_posix()}" if path else ""


def _write(path: Path, sheet: Sheet, columns: Mapping[str, Sequence[str]], rows: Sequence[int]) -> None:
    """The rows of a part with their new paths; every other column as it is, without slide_id and part."""
    kept = [place for place, key in enumerate(sheet.keys) if key not in (SLIDE, PART)]
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([sheet.columns[place] for place in kept])
        for number in rows:
            cells = sheet.rows[number].cells
            writer.writerow(
                [columns[key][number] if (key := sheet.keys[place]) in columns else cells[place] for place in kept]
            )


def _link(path: Path, target: Path) -> None:
    if not path.is_symlink():
        try:
            path.symlink_to(target, target_is_directory=True)
        except FileExistsError:
            pass  # another process was faster
        except OSError as error:
            raise CohortError(
                f"{path}: no link to {target} can be made ({error.strerror}); give the folder itself"
            ) from error
