"""The cohort table: a row per slide found, with its outcome, the reason and its part of the split."""

import os
from pathlib import Path
from typing import Final

import pandas as pd

from doctogres.errors import CohortError

COLUMNS: Final = (
    "slide_id",
    "image",
    "mask",
    "label",
    "group",
    "width",
    "height",
    "image_md5",
    "mask_md5",
    "twin_of",
    "outcome",
    "reason",
    "fold",
)
# Columns that stand beside those of the classes in some table.
RESERVED: Final = frozenset((
    "slide_id", "sample_index", "patch_id", "label", "group", "fold", "repeat", "predicted", "correct", "confidence",
    "abstained", "n_patches", "outcome", "reason", "image_md5", "mask_md5", "x", "y", "width", "height", "area",
))  # fmt: skip

KEPT: Final = "kept"
DROPPED: Final = "dropped"
REPAIRED: Final = "repaired"
REVIEW: Final = "review"
OUTCOMES: Final = (KEPT, DROPPED, REPAIRED, REVIEW)


def reason_code(reason: str) -> str:
    """The machine-readable code of a reason, `missing_mask` of `missing_mask: ... is not there`."""
    return reason.partition(":")[0]


def read_table(path: Path) -> pd.DataFrame:
    """The cohort table of a Parquet file, checked; the cohort's folder is in `attrs["root"]`.

    Raises:
        CohortError: not a cohort table.
    """
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise CohortError(f"{path} is not a readable cohort table ({error}); run the clean stage again") from error
    return check_table(table, str(path))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Writes the cohort table as Parquet; a killed process leaves no half-written file.

    Raises:
        CohortError: the table is not a cohort table.
    """
    check_table(table, "the table to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        table.to_parquet(temporary, index=False)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_table(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The table with its columns in order.

    Raises:
        CohortError: a column is missing, an outcome is unknown, or a slide appears twice.
    """
    if missing := [column for column in COLUMNS if column not in table.columns]:
        raise CohortError(f"{name} is not a cohort table: it lacks {', '.join(missing)}; run the clean stage again")
    if unknown := sorted(set(table["outcome"].astype(str)) - set(OUTCOMES)):
        raise CohortError(f"{name} holds the unknown outcome {unknown[0]!r}; known are {', '.join(OUTCOMES)}")
    if table["slide_id"].duplicated().any():
        twice = table.loc[table["slide_id"].duplicated(), "slide_id"].iloc[0]
        raise CohortError(f"{name} holds the slide {twice} twice; run the clean stage again")
    checked = table[list(COLUMNS)]
    checked.attrs.update(table.attrs)
    return checked


def usable(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that later stages work with: kept, repaired, and those marked for review."""
    return table[table["outcome"].isin((KEPT, REPAIRED, REVIEW))]
