"""The patch manifest: a row per region (and tile) of every usable slide, and all that is needed to cut the patches again."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final, Self

import pandas as pd

from doctogres.parquet import TableFile
from doctogres.settings import PatchSettings
from doctogres.slides.plausibility import MaskRange
from doctogres.slides.reasons import Reason

COLUMNS: Final = (
    "patch_id", "slide_id", "x", "y", "width", "height", "area", "mask_fraction",
    "label", "group", "fold", "outcome", "reason", "view",
)  # fmt: skip
KEPT: Final = "kept"
DROPPED: Final = "dropped"

FILE: Final = TableFile("patch manifest", version=2, columns=COLUMNS, stage="patch")


@dataclass(frozen=True)
class Manifest:
    """The result of `patch`.

    Attributes:
        rows: a row per region, tile or whole picture, including the dropped ones, with COLUMNS; `view` says which.
        root: the cohort's folder at the time of cutting.
        data_digest: of the cohort's files.
        cohort: URI of the cohort table.
        images: slide -> its picture, relative to `root`.
        image_md5: slide -> MD5 of its picture.
        patch: the settings used for cutting.
        pixels: key of the pixel cache, see `pixels.pixel_key`.
        masks: the range of the training slides' masks.
        fold_names: see `CohortTable`.
        mpp: slide -> its microns per pixel, where they are known.
        figures: slide -> its figures, see `slides.figures`; empty in the manifests of older versions.
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
    fold_names: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    mpp: Mapping[str, float] = field(default_factory=dict)

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

    def unit(self, slide: str) -> float:
        """The slide's pixels per pixel at which patches are cut, see `scale.Scale`."""
        return self.patch.target_mpp / self.mpp[slide] if self.patch.target_mpp else 1.0

    def trained_mpp(self, slides: Iterable[str]) -> float | None:
        """The microns per pixel at which these slides are cut: the setting, or their median; None if one is not known."""
        own = [self.mpp.get(slide) for slide in slides]
        known = [mpp for mpp in own if mpp is not None]
        return self.patch.target_mpp or (median(known) if known and len(known) == len(own) else None)

    @property
    def unreadable(self) -> pd.DataFrame:
        """The rows of slides that could not be cut: no patch, only the reason."""
        return self.rows[self.rows["reason"].str.startswith(f"{Reason.UNREADABLE_IMAGE}: ")]

    @property
    def kept(self) -> pd.DataFrame:
        """The rows of the first view that are patches."""
        return self.kept_of(self.patch.views[0])

    def kept_of(self, view: str) -> pd.DataFrame:
        """The rows that are patches of this view."""
        rows = self.rows
        return rows[(rows["outcome"] == KEPT) & (rows["view"] == view)].reset_index(drop=True)
