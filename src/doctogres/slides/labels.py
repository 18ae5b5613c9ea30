"""The table of labels: which row speaks of which slide, and what it says.

| what | becomes |
|---|---|
| labels that differ by invisible characters, Unicode form, or white space around and inside | one class |
| `luminal a` beside `Luminal A`, `Luminal-A`, or a Cyrillic `А` | refused: both spellings with their first rows |
| an empty label, `nan`, `NA`, `None`, `-`, `?`, `unknown`, ... (`-` beside `+` is a class) | none: the slide is unlabelled |
| a row without a name | left out without a label, else refused |
| a name | the one slide that it fits: see `names` |
| a column `group` or one that looks like it | see `groups` |
| a column `site`, `scanner`, `age`, ... | see `subgroups` |
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from doctogres.errors import CohortError, listed
from doctogres.slides.groups import GROUP, first_spellings, read_groups
from doctogres.slides.layout import LAYOUT, contents
from doctogres.slides.names import NameProblem, SlideNames, folders_of, shifted, slide_name, written_path
from doctogres.slides.reasons import first_few
from doctogres.slides.resolution import LEAST_MPP, MOST_MPP
from doctogres.slides.sheet import Row, Sheet, has_columns, read_sheet
from doctogres.slides.spelling import BLANKS, is_blank, likeness
from doctogres.slides.subgroups import AUTO, named_keys, read_subgroups
from doctogres.spreadsheets import has_controls, is_formula

SAMPLE: Final = "sample_index"
IMAGE: Final = "image"
MASK: Final = "mask"
MPP: Final = "mpp"
LABEL: Final = "label"


@dataclass(frozen=True)
class LabelRow:
    """What a row says.

    Attributes:
        row: where it stands.
        sample: the slide's name as it is written.
        label: empty where there is none.
        group: empty where there is none.
        mask: path of the mask as it is written; empty where there is none.
        blank: what stands for the missing label (`nan`), if anything does.
        about: the values of the columns for subgroups, by their key.
        mpp: microns per pixel of the slide; None where there are none.
    """

    row: Row
    sample: str
    label: str
    group: str
    mask: str = ""
    blank: str = ""
    about: Mapping[str, str] = field(default_factory=dict)
    mpp: float | None = None


@dataclass(frozen=True)
class LabelTable:
    """The rows that name a slide.

    Attributes:
        sheet: the table that they are from.
        rows: in its order.
        names_masks: whether it has the columns `image` and `mask`, so that it says which mask is whose.
    """

    sheet: Sheet
    rows: Sequence[LabelRow] = field(default_factory=tuple)
    names_masks: bool = False

    def of_slides(self, slides: Collection[str], folder: str) -> dict[str, list[LabelRow]]:
        """The rows of every slide in `slides`, which lie in a folder of this name, and of those that are not there.

        Raises:
            CohortError: a name may mean several slides or another one; names the row and the remedy.
        """
        names, found = SlideNames(slides, folder), dict[str, str | None]()
        for row in self.rows:
            try:
                found[row.sample] = names.slide(row.sample)
            except NameProblem as problem:
                self.sheet.refuse(row.row, problem.problem, problem.remedy)
        if lost := shifted(found, slides):
            self.sheet.refuse(
                next(row.row for row in self.rows if row.sample == lost),
                "is a number that matches no picture, while other pictures are not listed",
                "the numbering may start elsewhere, so write the pictures' full names",
            )
        return self._gathered({sample: slide or _absent(sample) for sample, slide in found.items()})

    def _gathered(self, slide_of: Mapping[str, str]) -> dict[str, list[LabelRow]]:
        rows: dict[str, list[LabelRow]] = {}
        for row in self.rows:
            rows.setdefault(slide_of[row.sample], []).append(row)
        for slide, members in rows.items():
            if len(folders := folders_of([member.sample for member in members])) > 1:
                self.sheet.refuse(
                    members[-1].row,
                    f"refers to {slide}, like a row with a different folder ({first_few(sorted(folders))})",
                    "put the pictures' paths into a column `image` and those of the masks into a column `mask`",
                )
        return rows


def column_names(text: str) -> tuple[str, ...]:
    """The names in a parameter, separated by commas."""
    return tuple(name for part in text.split(",") if (name := part.strip()))


def names_masks(path: Path) -> bool:
    """Whether there is a table with the columns image and mask."""
    return path.is_file() and has_columns(path, [(IMAGE, MASK)])


def read_names(path: Path) -> LabelTable:
    """The pictures and masks that a table lists, without their labels.

    Raises:
        CohortError: it cannot be read, or not in one way only.
    """
    sheet = read_sheet(path, [(IMAGE, MASK)])
    cells = zip(sheet.rows, sheet.texts(IMAGE), sheet.texts(MASK), strict=True)
    return LabelTable(
        sheet, [LabelRow(row, image, "", "", mask) for row, image, mask in cells if image], names_masks=True
    )


def read_group_column(path: Path) -> LabelTable | None:
    """The groups of the slides in a table that may lack labels; None without a table that has names and `group`.

    Raises:
        CohortError: it cannot be read in one way only.
    """
    needed = [(SAMPLE, GROUP), (IMAGE, GROUP)]
    if not path.is_file() or not has_columns(path, needed):
        return None
    sheet = read_sheet(path, needed)
    name = SAMPLE if sheet.position(SAMPLE) is not None else IMAGE
    cells = zip(sheet.rows, sheet.texts(name), first_spellings(sheet.texts(GROUP)), sheet.texts(MASK), strict=True)
    rows = [LabelRow(row, sample, "", group, mask) for row, sample, group, mask in cells if sample]
    return LabelTable(sheet, rows, names_masks=name == IMAGE and sheet.position(MASK) is not None)


def read_labels(path: Path, *, ignore_columns: Collection[str] = (), subgroups: str = AUTO) -> LabelTable:
    """The table of labels at `path`; `subgroups` as for `subgroups.chosen_keys`.

    Raises:
        CohortError: there is no such table, it cannot be read, or not in one way only.
    """
    if not path.is_file():
        raise CohortError(f"{path.parent} has no {path.name} (it holds {contents(path.parent)}): {LAYOUT}")
    sheet = read_sheet(path, [(SAMPLE, LABEL), (IMAGE, LABEL)])
    names = [column for column in (SAMPLE, IMAGE) if sheet.position(column) is not None]
    if len(names) > 1:
        raise CohortError(f"{sheet.name} has both {SAMPLE} and {IMAGE}; keep the one that names the pictures")
    samples, labels, masks = sheet.texts(names[0]), sheet.texts(LABEL), sheet.texts(MASK)
    has_label = _has_label(labels)
    _refuse_nameless(sheet, samples, has_label)
    _refuse_formulas(sheet, labels, has_label)
    _refuse_alike(sheet, [label * has for label, has in zip(labels, has_label, strict=True)], samples)
    slides = samples if names == [IMAGE] else list(map(_absent, samples))
    about = read_subgroups(sheet, subgroups)
    groups = read_groups(sheet, slides, has_label, (*names, LABEL, MASK, *named_keys(subgroups)), ignore_columns)
    cells = zip(sheet.rows, samples, labels, has_label, groups, masks, about, _mpps(sheet), strict=True)
    rows = [
        LabelRow(row, sample, label * has, group, mask, "" if has else label, said, mpp)
        for row, sample, label, has, group, mask, said, mpp in cells
        if sample
    ]
    return LabelTable(sheet, rows, names_masks=names == [IMAGE] and sheet.position(MASK) is not None)


def _mpps(sheet: Sheet) -> list[float | None]:
    """Microns per pixel by row, where the table has the column."""
    return [
        None if is_blank(text) else _mpp(sheet, row, text)
        for row, text in zip(sheet.rows, sheet.texts(MPP), strict=True)
    ]


def _mpp(sheet: Sheet, row: Row, text: str) -> float:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = 0.0
    if not LEAST_MPP <= value <= MOST_MPP:
        sheet.refuse(
            row, f"has the mpp {text!r}", f"enter microns per pixel, {LEAST_MPP:g} to {MOST_MPP:g}, or nothing"
        )
    return value


def _has_label(labels: Sequence[str]) -> list[bool]:
    blanks = BLANKS - {"-"} if "+" in labels else BLANKS
    return [label.casefold() not in blanks for label in labels]


def _absent(sample: str) -> str:
    """The slide_id of a sample that no picture fits."""
    return slide_name(written_path(sample).name or sample)


def _refuse_nameless(sheet: Sheet, samples: Sequence[str], has_label: Sequence[bool]) -> None:
    for row, sample, has in zip(sheet.rows, samples, has_label, strict=True):
        if has and not sample:
            sheet.refuse(row, "has a label but no slide name", "enter it, or remove the row")


def _refuse_formulas(sheet: Sheet, labels: Sequence[str], has_label: Sequence[bool]) -> None:
    """Refuses labels that a spreadsheet would run, or that hold what a terminal obeys."""
    cells = zip(labels, sheet.stored(LABEL), has_label, strict=True)
    bad = sorted({cell for label, cell, has in cells if has and (is_formula(label) or has_controls(cell))})
    if bad:
        raise CohortError(
            f"{sheet.name} has labels that begin with = + - @ or hold control characters, which spreadsheets and "
            f"terminals take for commands ({listed(list(map(repr, bad)))}); give these classes other names"
        )


def _refuse_alike(sheet: Sheet, labels: Sequence[str], samples: Sequence[str]) -> None:
    """Refuses two spellings of what looks like one label."""
    rows: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        if label:
            rows.setdefault(label, []).append(number)
    of_likeness: dict[str, str] = {}
    for label, numbers in rows.items():
        twin = of_likeness.setdefault(likeness(label), label)
        if twin != label:
            said = [
                f"{spelling!r} ({len(of)} rows, the first: line {sheet.rows[of[0]].line}, {samples[of[0]]})"
                for spelling, of in ((twin, rows[twin]), (label, numbers))
            ]
            raise CohortError(
                f"{sheet.name} has the labels {' and '.join(said)}, which differ only in case, separators or look-alike "
                "letters; use one spelling in all rows"
            )
