"""Text as a spreadsheet takes it: what begins with = + - @ is a formula there, and runs when the file is opened.

`decisions.csv` is opened in one, and names and notes in it may come from anybody.
"""

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

import pandas as pd

SIGNS: Final = frozenset("=+-@")
# A score such as +, ++ or -1 does nothing.
HARMLESS: Final = re.compile(r"[+-]+|[+-]?\d+([.,]\d+)?(e[+-]?\d+)?", re.IGNORECASE)


def is_formula(text: str) -> bool:
    """Whether a spreadsheet may take the text for a formula: it begins with = + - @, also after white space or full-width."""
    shown = unicodedata.normalize("NFKC", text).lstrip()
    return shown[:1] in SIGNS and HARMLESS.fullmatch(text) is None


def has_controls(text: str) -> bool:
    """Whether the text has control characters, such as a line break or an escape sequence of a terminal."""
    return any(unicodedata.category(letter) == "Cc" for letter in text)


def as_text(value: Any) -> Any:
    """The value for a cell: a formula begins with an apostrophe there, as spreadsheets mark text."""
    return f"'{value}" if isinstance(value, str) and is_formula(value.lstrip("'")) else value


def as_written(cell: Any) -> Any:
    """What `as_text` made the cell of."""
    marked = isinstance(cell, str) and cell.startswith("'") and is_formula(cell.lstrip("'"))
    return cell[1:] if marked else cell


def write_csv(table: pd.DataFrame, path: Path | BinaryIO) -> None:
    """Writes a table for people, without its index; no cell and no column's name is a formula."""
    _mapped(table, as_text).to_csv(path, index=False)


def read_back(table: pd.DataFrame) -> pd.DataFrame:
    """A table that `write_csv` wrote, as it was."""
    return _mapped(table, as_written)


def _mapped(table: pd.DataFrame, change: Callable[[Any], Any]) -> pd.DataFrame:
    texts = table.select_dtypes(exclude="number")
    return table.assign(**{str(name): texts[name].map(change) for name in texts}).rename(columns=change)
