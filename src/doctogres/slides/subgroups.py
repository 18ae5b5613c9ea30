"""The columns of the table of labels by which scores are split: site, scanner, age, ... as TRIPOD+AI asks (Collins 2024).

Only recognised columns and those named by `subgroups` are kept, because the others may hold names.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import pandas as pd

from doctogres.errors import CohortError, ParameterError, listed
from doctogres.slides.sheet import Sheet
from doctogres.slides.spelling import column_key, is_blank

AUTO: Final = "auto"
NONE: Final = "none"
SUBGROUP: Final = "s_"  # before the column's name in tables
# Where several patients come from: no identifier of a patient where `group` is one.
PLACES: Final = frozenset(["site", "centre", "center", "hospital", "clinic", "institute", "institution"])
RECOGNISED: Final = PLACES | frozenset(
    re.findall(
        r"\w+",
        "laboratory lab country scanner stain staining magnification age sex gender ethnicity race year grade stage",
    )
)


def chosen_keys(sheet: Sheet, subgroups: str) -> list[str]:
    """The columns that are kept, by key, in the table's order.

    Args:
        sheet: the table of labels.
        subgroups: `auto` for the recognised ones, `none`, or names separated by commas.

    Raises:
        CohortError: the table has no column of a name.
    """
    if subgroups == AUTO:
        return [key for key in dict.fromkeys(sheet.keys) if key in RECOGNISED]
    wanted = named_keys(subgroups)
    if unknown := [name for key, name in wanted.items() if key not in sheet.keys]:
        raise CohortError(f"subgroups={unknown[0]}: {sheet.name} has no such column (it has {listed(sheet.columns)})")
    return [key for key in dict.fromkeys(sheet.keys) if key in wanted]


def named_keys(subgroups: str) -> dict[str, str]:
    """The names in the parameter, by key; none of `auto` and `none`.

    Raises:
        ParameterError: a column with a meaning of its own is named.
    """
    names = [] if subgroups in (AUTO, NONE) else [part.strip() for part in subgroups.split(",") if part.strip()]
    keys = {column_key(name): name for name in names}
    if taken := keys.keys() & {"sample_index", "image", "mask", "label", "group"}:
        raise ParameterError(
            f"subgroups={keys[min(taken)]}: this column is no property of a slide; name others, such as site"
        )
    return keys


def read_subgroups(sheet: Sheet, subgroups: str) -> list[dict[str, str]]:
    """The kept columns of every row; empty where there is no value. Values that differ in case are one.

    Raises:
        CohortError: see `chosen_keys`.
    """
    columns = {key: _values(sheet.texts(key)) for key in chosen_keys(sheet, subgroups)}
    return [{key: texts[row] for key, texts in columns.items()} for row in range(len(sheet.rows))]


def _values(texts: Iterable[str]) -> list[str]:
    first: dict[str, str] = {}
    return ["" if is_blank(text) else first.setdefault(text.casefold(), text) for text in texts]


def common(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What the rows of one slide say, with the column's names in tables; empty where they differ."""
    return {
        f"{SUBGROUP}{key}": value if all(row[key] == value for row in rows) else ""
        for key, value in (rows[0] if rows else {}).items()
    }


def subgroup_columns(slides: pd.DataFrame, subgroups: str = AUTO) -> list[str]:
    """The columns of a table of slides by which its scores are split.

    Raises:
        CohortError: the table lacks one that is named.
    """
    found = [str(name) for name in slides if str(name).startswith(SUBGROUP)]
    if subgroups == AUTO:
        return found
    wanted = named_keys(subgroups)
    if missing := [name for key, name in wanted.items() if f"{SUBGROUP}{key}" not in found]:
        known = listed([name.removeprefix(SUBGROUP) for name in found]) or "none"
        raise CohortError(
            f"subgroups={missing[0]}: the slides have no such column (they have {known}); if the table of labels has it, run "
            f"`clean` with subgroups={missing[0]}"
        )
    return [f"{SUBGROUP}{key}" for key in wanted]
