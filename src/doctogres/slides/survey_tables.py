"""Labels, patients and masks of slides as the tables in their folder say them, whatever the columns are called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Final

from doctogres.errors import CohortError, DoctogresError
from doctogres.slides.groups import looks_like_group
from doctogres.slides.labels import IMAGE, LABEL, MASK, SAMPLE
from doctogres.slides.listed_cohort import PART, SLIDE, SUFFIX, TEST_PART, TRAIN_PART
from doctogres.slides.names import slide_name, written_path
from doctogres.slides.reasons import Reason, written
from doctogres.slides.sheet import Sheet, has_columns, read_sheet
from doctogres.slides.spelling import column_key, folded, is_blank
from doctogres.slides.subgroups import PLACES

GROUP: Final = "group"
TRAIN_FOLDERS: Final = frozenset(("train", "training", "train_data"))
TEST_FOLDERS: Final = frozenset(("test", "testing", "test_data"))
ROLES: Final = {  # what people call these columns; the first that is there counts
    IMAGE: (
        SAMPLE,
        IMAGE,
        "img",
        "picture",
        "file",
        "filename",
        "file_name",
        "path",
        "image_path",
        SLIDE,
        "slide",
        "name",
        "id",
    ),
    MASK: (MASK, "mask_path", "mask_file", "segmentation"),
    LABEL: (LABEL, "class", "subtype", "diagnosis", "target", "category", "y"),
}


@dataclass
class FoundSlide:
    """A slide as far as names and tables say; paths are relative to the folder, in POSIX form."""

    slide_id: str
    image: str
    masks: list[str] = field(default_factory=list)
    label: str = ""
    group: str = ""
    part: str = TRAIN_PART
    about: dict[str, str] = field(default_factory=dict)

    @property
    def mask(self) -> str:
        """Its mask; empty without one, and where several may be it."""
        return self.masks[0] if len(self.masks) == 1 else ""


def part_of(path: str) -> str:
    """The part of a picture, by the folders that it lies in."""
    in_test = any(folder.lower() in TEST_FOLDERS for folder in PurePosixPath(path).parts[:-1])
    return TEST_PART if in_test else TRAIN_PART


def part_of_table(path: str) -> str:
    """The part of which a table speaks where it can mean slides of both."""
    return TEST_PART if "test" in PurePosixPath(path).stem.lower() else TRAIN_PART


def read_tables(
    root: Path, files: Sequence[str], slides: Sequence[FoundSlide]
) -> tuple[str, str, list[str], list[tuple[str, str]]]:
    """Fills in what a table says of the slides.

    Returns:
        The table's path, the column of patients, further columns, and the rows that name no slide.
    """
    tables, unread = _tables(root, files)
    named: dict[str, list[FoundSlide]] = {}
    for slide in slides:
        for name in {slide.slide_id, slide.image, PurePosixPath(slide.image).name, PurePosixPath(slide.image).stem}:
            named.setdefault(folded(name), []).append(slide)
    labels_from, group_from, about = list[str](), "", dict[str, None]()
    problems: list[tuple[str, str]] = []
    for path, sheet, roles in tables:
        groups = _group_columns(sheet, roles)
        if len(groups) > 1:
            problems.append(
                (
                    path,
                    f"several_groups: {path} has the columns {' and '.join(groups)}; call that of the patients group",
                )
            )
            groups = []
        further = [column for column in sheet.columns if column not in (*roles.values(), *groups[:1])]
        matched = 0
        for row in sheet.rows:
            said = {
                column: row.cells[place].strip() for place, column in enumerate(sheet.columns) if place < len(row.cells)
            }
            meant = _named(said[roles[IMAGE]], path, named)
            if meant is None:
                problems.append(
                    (
                        path,
                        written(
                            Reason.MISSING_IMAGE,
                            f"line {row.line} of {path} names {said[roles[IMAGE]]!r}, which is no picture here",
                        ),
                    )
                )
                continue
            matched, slide = matched + 1, meant
            if slide.label and slide.label != said[roles[LABEL]]:
                raise CohortError(
                    f"{path} line {row.line}: {slide.slide_id} has two labels ({slide.label}, {said[roles[LABEL]]}); keep one"
                )
            slide.label = "" if is_blank(said[roles[LABEL]]) else said[roles[LABEL]]
            slide.group = said[groups[0]] if groups else ""
            slide.about |= {column: said.get(column, "") for column in further}
            if MASK in roles and (mask := said[roles[MASK]]):
                slide.masks = [_beside(path, mask, files)]
        if matched:
            labels_from.append(path)
            group_from = groups[0] if groups else group_from
            about |= dict.fromkeys(further)
    return ", ".join(labels_from), group_from, list(about), unread + (problems if labels_from else [])


def _tables(root: Path, files: Sequence[str]) -> tuple[list[tuple[str, Sheet, dict[str, str]]], list[tuple[str, str]]]:
    """Path, content and roles of the tables that may have labels, and why others of them cannot be read."""
    tables, unread = [], []
    for path in files:
        if path.lower().endswith((SUFFIX, ".tsv")):
            try:
                sheet = _sheet(root / path)
            except DoctogresError as error:
                unread.append((path, f"unreadable_table: {error}"))
                continue
            if sheet and not _is_own(sheet) and {IMAGE, LABEL} <= (roles := _roles(sheet)).keys():
                tables.append((path, sheet, roles))
    return tables, unread


def _sheet(path: Path) -> Sheet | None:
    """The table, if it has columns that can be those of labels.

    Raises:
        CohortError: it has, but a row cannot be read in one way only.
    """
    needed = list(product(ROLES[IMAGE], ROLES[LABEL]))
    return read_sheet(path, needed) if has_columns(path, needed) else None


def _is_own(sheet: Sheet) -> bool:
    """Whether the table is a cohort.csv that was written before: it repeats what the folder and its other tables say."""
    return {SLIDE, IMAGE, MASK, LABEL, PART} <= set(sheet.keys)


def _group_columns(sheet: Sheet, roles: Mapping[str, str]) -> list[str]:
    """The column of patients: `group`, or what is called like one; several where that is not certain."""
    free = [
        column
        for column in sheet.columns
        if column not in roles.values() and column_key(column) not in {SLIDE, *PLACES}
    ]
    own = [column for column in free if column_key(column) == GROUP]
    return own or [column for column in free if looks_like_group(column)]


def _roles(sheet: Sheet) -> dict[str, str]:
    """Which column is which."""
    by_key = {column_key(column): column for column in sheet.columns}
    found = {role: next((by_key[name] for name in names if name in by_key), None) for role, names in ROLES.items()}
    return {role: column for role, column in found.items() if column is not None}


def _named(text: str, table: str, named: Mapping[str, Sequence[FoundSlide]]) -> FoundSlide | None:
    """The slide that a cell means: by its path beside the table, its path, its file's name, or its name."""
    path = written_path(text)
    beside = (PurePosixPath(table).parent / path).as_posix()
    for name in (beside, path.as_posix(), path.name, slide_name(path.name)):
        found = named.get(folded(name), [])
        of_part = [slide for slide in found if slide.part == part_of_table(table)]
        for fitting in (found, of_part):
            if len(fitting) == 1:
                return fitting[0]
    return None


def _beside(table: str, mask: str, files: Sequence[str]) -> str:
    """The path of a mask that a table names."""
    path = written_path(mask)
    found = [name for name in ((PurePosixPath(table).parent / path).as_posix(), path.as_posix()) if name in files]
    return found[0] if found else path.as_posix()
