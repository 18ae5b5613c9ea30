"""Files of slide and patch predictions: their columns, and their only reader and writer.

| file | stage | one row per |
|---|---|---|
| predictions.csv | evaluate | slide of the split |
| patch_predictions.parquet | evaluate, predict | classified region |
| predictions.parquet | predict | slide; predictions.csv beside it is for people and is not read again |
| oof_predictions.parquet | train | patch and repeat, by the network that was not trained on its slide |

Each also has a column `p_<class>` for every class; the prefix allows any class name. The class order is the order of
these columns in a CSV file, and is stored in the metadata of a Parquet file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.errors import UpstreamError
from doctogres.parquet import TableFile
from doctogres.patches.regions import REGION_FIELDS
from doctogres.slides.selection import CONTENT
from doctogres.spreadsheets import read_back, write_csv

PROBABILITY: Final = "p_"  # before a class's name
TEXTS: Final = ("slide_id", "label", "group", "predicted", "reason", *CONTENT)
EVALUATED: Final = (*TEXTS, "correct", "confidence", "abstained", "n_patches")

PREDICTED: Final = TableFile(
    "table of predictions",
    version=3,
    columns=(
        "slide_id",
        "sample_index",
        "label",
        "outcome",
        "reason",
        "n_patches",
        "confidence",
        "abstained",
        "mask_source",
        "labels",
        "novelty",
    ),
    stage="predict",
)
PATCHES: Final = TableFile(
    "table of patch predictions", version=1, columns=("slide_id", *REGION_FIELDS, "predicted"), stage="evaluate"
)
OUT_OF_FOLD: Final = TableFile(
    "table of out-of-fold predictions",
    version=1,
    columns=("patch_id", "slide_id", "repeat", "fold", "label", "area"),
    stage="train",
)


@dataclass(frozen=True)
class Predictions:
    """Slides or patches with their predicted probabilities, row for row.

    Attributes:
        rows: all columns except the probabilities.
        classes: the class order.
        probabilities: (rows, classes).
    """

    rows: pd.DataFrame
    classes: tuple[str, ...]
    probabilities: npt.NDArray[np.float64]

    @property
    def table(self) -> pd.DataFrame:
        """The rows with a column `p_<class>` for every class."""
        columns = [f"{PROBABILITY}{name}" for name in self.classes]
        return self.rows.join(pd.DataFrame(self.probabilities, index=self.rows.index, columns=columns))

    def of_slides(self, slides: Sequence[str], classes: Sequence[str]) -> npt.NDArray[np.float64]:
        """(slides, classes) in the given orders; a class unknown to the model has probability 0."""
        table = pd.DataFrame(self.probabilities, index=pd.Index(self.rows["slide_id"]), columns=list(self.classes))
        return table.loc[list(slides)].reindex(columns=list(classes), fill_value=0.0).to_numpy(np.float64)

    def write(self, file: TableFile, path: Path) -> None:
        """Writes the Parquet file."""
        file.write(self.table, path, {"classes": list(self.classes)})

    @classmethod
    def read(cls, file: TableFile, path: Path) -> Self:
        """Reads what `write` wrote; see `TableFile.read` for errors."""
        table, about = file.read(path)
        return cls._split(table, about["classes"])

    def write_csv(self, path: Path) -> None:
        """Writes predictions.csv."""
        write_csv(self.table, path)

    @classmethod
    def read_csv(cls, path: Path) -> Self:
        """Reads what `write_csv` wrote, without rounding.

        Raises:
            UpstreamError: the file is not the predictions of an evaluation.
        """
        remedy = "give a run of `evaluate` by this version of doctogres"
        try:
            table = pd.read_csv(path, dtype=dict.fromkeys((*TEXTS, "labels"), str), keep_default_na=False)
            table = read_back(table)
            names = [str(name) for name in table]
            classes = [name.removeprefix(PROBABILITY) for name in names if name.startswith(PROBABILITY)]
            predictions = cls._split(table, classes)
        except (OSError, ValueError) as error:  # pandas' parser and decoding errors are ValueErrors
            raise UpstreamError(f"{path}: not the predictions of an evaluation ({error}); {remedy}") from error
        missing = [name for name in EVALUATED if name not in table] + [f"{PROBABILITY}<class>"] * (not classes)
        if missing:
            raise UpstreamError(f"{path}: not the predictions of an evaluation: missing {', '.join(missing)}; {remedy}")
        return predictions

    @classmethod
    def _split(cls, table: pd.DataFrame, classes: Sequence[str]) -> Self:
        columns = [f"{PROBABILITY}{name}" for name in classes]
        return cls(table.drop(columns=columns), tuple(classes), table[columns].to_numpy(np.float64))
