"""The cohort table: a row per slide found, with its outcome, the reason and its part of the split."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import pandas as pd

from doctogres.errors import CohortError
from doctogres.parquet import TableFile
from doctogres.slides.subgroups import SUBGROUP

COLUMNS: Final = (
    "slide_id",
    "image",
    "mask",
    "annotations",
    "label",
    "group",
    "mpp",
    "width",
    "height",
    "image_md5",
    "mask_md5",
    "twin_of",
    "outcome",
    "reason",
    "fold",
)

KEPT: Final = "kept"
DROPPED: Final = "dropped"
REPAIRED: Final = "repaired"
REVIEW: Final = "review"
OUTCOMES: Final = (KEPT, DROPPED, REPAIRED, REVIEW)

FILE: Final = TableFile("cohort table", version=1, columns=COLUMNS, stage="clean")


@dataclass(frozen=True)
class CohortTable:
    """What `clean` hands on.

    Attributes:
        rows: a row per slide found, with COLUMNS; image and mask are relative to `root`.
        root: the cohort's folder, as it was cleaned.
        data_digest: of the files' content.
        fold_names: fold -> the site that it is, if every fold is one (`folds_by`); otherwise empty.
    """

    rows: pd.DataFrame
    root: Path
    data_digest: str
    fold_names: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """The table of a file.

        Raises:
            UpstreamError: the file is not a cohort table.
            CohortError: see `checked`.
        """
        rows, about = FILE.read(path)
        return cls(checked(rows, str(path)), Path(about["root"]), about["data_digest"], about.get("fold_names", {}))

    def write(self, path: Path) -> None:
        """Writes the table; see `checked` for what is refused."""
        rows = checked(self.rows, "the table to write")
        FILE.write(rows, path, {"root": str(self.root), "data_digest": self.data_digest, "fold_names": self.fold_names})

    @property
    def usable(self) -> pd.DataFrame:
        """The rows that later stages work with."""
        return usable(self.rows)


def checked(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of a cohort table with its columns in order, then those for subgroups.

    Raises:
        CohortError: a column is missing, an outcome is unknown, or a slide appears twice.
    """
    if missing := [column for column in COLUMNS if column not in rows.columns]:
        raise CohortError(f"{name} is not a cohort table: it lacks {', '.join(missing)}; run the clean stage again")
    if unknown := sorted(set(rows["outcome"].astype(str)) - set(OUTCOMES)):
        raise CohortError(f"{name} holds the unknown outcome {unknown[0]!r}; known are {', '.join(OUTCOMES)}")
    if rows["slide_id"].duplicated().any():
        twice = rows.loc[rows["slide_id"].duplicated(), "slide_id"].iloc[0]
        raise CohortError(f"{name} holds the slide {twice} twice; run the clean stage again")
    return rows[[*COLUMNS, *(name for name in rows if str(name).startswith(SUBGROUP))]]


def usable(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that later stages work with: kept, repaired, and those marked for review."""
    return rows[rows["outcome"].isin((KEPT, REPAIRED, REVIEW))]
