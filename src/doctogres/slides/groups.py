"""The column that says which slides belong together (to one patient), and columns that look as if they did.

A column called `group`, in any case, is the group. Another column is refused if it is named like a patient, case, donor,
specimen, block, site, source slide, ... and several slides share a value, because a split that ignores it could put one
patient on both sides. The user renames it to `group` or names it in `ignore_columns`. It is accepted if `group` already
keeps its slides together; so is a place (`site`, `hospital`, ...) beside a `group`, because it has many patients.
"""

import re
from collections.abc import Collection, Sequence
from typing import Final

from doctogres.errors import CohortError, listed
from doctogres.slides.reasons import first_few
from doctogres.slides.sheet import Sheet
from doctogres.slides.spelling import column_key, is_blank, visible
from doctogres.slides.subgroups import PLACES

GROUP: Final = "group"
# What several slides can come from.
OWNERS: Final = frozenset(
    re.findall(
        r"\w+",
        "pt pat ptid pid case cases donor donors subject subjects subj individual participant person volunteer woman animal "
        "mouse specimen specimens sample samples biopsy biopsies resection surgery operation block blocks tma core accession "
        "mrn nhs barcode slide slides wsi source parent origin site centre center hospital clinic institute institution "
        "groups cluster",
    )
)
PATIENTS: Final = (
    "patient",
    "pacient",
    "pazient",
    "pasient",
    "пациент",
    "患者",
    "病人",
    "病例",
    "환자",
)  # as beginnings
# With one of these words it is a property, not an identifier: `patient_age`.
PROPERTIES: Final = frozenset(
    re.findall(
        r"\w+",
        "age sex gender race ethnicity type kind status stage grade date day days month months year years time outcome "
        "response survival score size weight height width count total control comment comments note notes description "
        "history diagnosis class label subtype bmi quality",
    )
)
NUMBERS: Final = ("identifier", "number", "index", "uuid", "code", "name", "num", "key", "uid", "id", "no", "nr")


def looks_like_group(column: str) -> bool:
    """Whether a column is named like the identifier of a patient, a case, a specimen, ..."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", visible(column))
    words = re.findall(r"[^\W_]+", spaced.casefold())
    if PROPERTIES & set(words):
        return False
    joined = "".join(words)
    ending = next((number for number in NUMBERS if joined.endswith(number)), "")
    owned = OWNERS & {*words, joined.removesuffix(ending)}
    return joined == "id" or bool(owned) or any(word.startswith(PATIENTS) for word in words)


def read_groups(
    sheet: Sheet,
    slides: Sequence[str],
    labelled: Sequence[bool],
    known: Collection[str],
    ignore_columns: Collection[str],
) -> list[str]:
    """The group of every row, all empty where there is none; spellings that differ in case are one group.

    Args:
        sheet: the table of labels.
        slides: the name in every row.
        labelled: whether the row has a label.
        known: the keys of the columns that mean something else.
        ignore_columns: names of columns that look like patient columns but are not.

    Raises:
        CohortError: a column looks like a group; the group is blank in a row with a label; or `ignore_columns` has a
            name that the table lacks.
    """
    ignored = {column_key(name): name for name in ignore_columns}
    if unknown := [name for key, name in ignored.items() if key not in sheet.keys]:
        raise CohortError(
            f"ignore_columns={unknown[0]}: {sheet.name} has no such column (it has {listed(sheet.columns)})"
        )
    groups = [""] * len(sheet.rows) if GROUP in ignored else first_spellings(sheet.texts(GROUP))
    if any(groups):
        _refuse_blank(sheet, groups, labelled)
    for column, key in zip(sheet.columns, sheet.keys, strict=True):
        accepted = {*known, GROUP, *ignored, *(PLACES if any(groups) else ())}
        if key not in accepted and looks_like_group(column):
            _refuse_shared(sheet, column, slides, groups)
    return groups


def first_spellings(texts: Sequence[str]) -> list[str]:
    """The first spelling of every group; empty where there is none."""
    first: dict[str, str] = {}
    return ["" if is_blank(text) else first.setdefault(text.casefold(), text) for text in texts]


def _refuse_blank(sheet: Sheet, groups: Sequence[str], labelled: Sequence[bool]) -> None:
    rows = zip(sheet.rows, groups, labelled, strict=True)
    blank = [row for row, group, has_label in rows if has_label and not group]
    if blank:
        sheet.refuse(
            blank[0],
            f"has no group, like {len(blank)} of the {len(groups)} rows",
            "enter the patient; if no other slide is from the same patient, enter a value of its own",
        )


def _refuse_shared(sheet: Sheet, column: str, slides: Sequence[str], groups: Sequence[str]) -> None:
    """Refuses a column with a value that several slides share, unless their group is the same."""
    of_value: dict[str, dict[str, str]] = {}
    for slide, group, value in zip(slides, groups, first_spellings(sheet.texts(column_key(column))), strict=True):
        if value:
            of_value.setdefault(value, {})[slide] = group
    apart = {
        value: sorted(members)
        for value, members in of_value.items()
        if len(members) > 1 and (not any(members.values()) or len(set(members.values())) > 1)
    }
    if not apart:
        return
    value, members = next(iter(apart.items()))
    where = f" and in different groups of `{GROUP}`" if any(groups) else ""
    remedy = f"merge these groups in `{GROUP}`" if any(groups) else f"rename the column to `{GROUP}`"
    raise CohortError(
        f"{sheet.name} has the column {column!r}, where {len(apart)} of {len(of_value)} values are shared by several slides"
        f"{where} ({value!r}: {first_few(members)}); if it identifies patients, {remedy}, so that no patient is in both "
        f"training and hold-out; if it does not, pass ignore_columns={column}"
    )
