"""The patch manifest: a row per region of every usable slide, and everything needed to cut the patches again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.cleaning.slime import remove_splat
from doctogres.parquet import TableFile
from doctogres.settings import PatchSettings
from doctogres.slides.masks import read_with_mask
from doctogres.slides.plausibility import MaskRange
from doctogres.slides.table import REPAIRED

COLUMNS: Final = (
    "patch_id", "slide_id", "x", "y", "width", "height", "area", "mask_fraction",
    "label", "group", "fold", "outcome", "reason",
)  # fmt: skip
KEPT: Final = "kept"
DROPPED: Final = "dropped"

FILE: Final = TableFile("patch manifest", version=1, columns=COLUMNS, stage="patch")


@dataclass(frozen=True)
class Manifest:
    """The result of `patch`.

    Attributes:
        rows: a row per region, including the dropped ones, with COLUMNS.
        root: the cohort's folder at the time of cutting.
        data_digest: of the cohort's files.
        cohort: URI of the cohort table.
        images: slide -> its picture, relative to `root`.
        image_md5: slide -> MD5 of its picture.
        patch: the settings used for cutting.
        pixels: key of the pixel cache, see `pixels.pixel_key`.
        masks: the range of the training slides' masks.
    """

    rows: pd.DataFrame
    root: Path
    data_digest: str
    cohort: str
    images: Mapping[str, str]
    image_md5: Mapping[str, str]
    patch: PatchSettings
    pixels: str
    masks: MaskRange | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a manifest; any other file raises an UpstreamError that says what it is."""
        rows, about = FILE.read(path)
        root, patch = Path(about.pop("root")), PatchSettings.model_validate(about.pop("patch"))
        masks = None if (recorded := about.pop("masks", None)) is None else MaskRange.model_validate(recorded)
        return cls(rows, root=root, patch=patch, masks=masks, **about)

    def write(self, path: Path) -> None:
        """Writes the manifest."""
        about = {name: value for name, value in vars(self).items() if name != "rows"}
        masks = None if self.masks is None else self.masks.model_dump()
        FILE.write(self.rows, path, about | {"root": str(self.root), "patch": self.patch.model_dump(), "masks": masks})

    @property
    def kept(self) -> pd.DataFrame:
        """The regions that are patches."""
        return self.rows[self.rows["outcome"] == KEPT].reset_index(drop=True)


def read_slide(root: Path, row: Any) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Picture and mask of a row of the cohort table; for a repaired slide, the mask without the splat."""
    rgb, mask = read_with_mask(root / row.image, root / row.mask, name=row.image, mask_name=row.mask)
    return rgb, remove_splat(mask, rgb) if row.outcome == REPAIRED else mask
