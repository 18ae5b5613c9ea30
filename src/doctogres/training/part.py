"""The patches available for training, view by view: the kept ones as samples, with the class order and the folds."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.errors import CohortError, listed
from doctogres.patches.manifest import Manifest
from doctogres.patches.pixels import PatchSet, load_patches
from doctogres.slides.splits import HOLDOUT, check_no_leakage, draw_folds
from doctogres.training.samples import Samples

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TrainingPart:
    """The patches of a view that are available for training, with the class order and the folds."""

    patches: PatchSet
    samples: Samples
    classes: list[str]
    folds: list[str]

    def all_rows(self, *, holdout: bool = False) -> Rows:
        """Row numbers of all folds, with or without the hold-out."""
        return np.flatnonzero(holdout | (self.patches.table["fold"] != HOLDOUT)).astype(np.int64)

    def row_sets(self, *, holdout: bool = False) -> list[Rows]:
        """Row numbers of all folds and, if asked for, those of the hold-out, if it has patches: what is known of the former stays."""
        held_out = np.flatnonzero(self.patches.table["fold"] == HOLDOUT).astype(np.int64)
        return [self.all_rows(), held_out] if holdout and len(held_out) else [self.all_rows()]

    def rows(self, fold: str, *, repeat: int = 0, seed: int = 0, holdout: bool = False) -> tuple[Rows, Rows]:
        """Row numbers to train on and row numbers of the left-out fold.

        Args:
            fold: the fold to leave out.
            repeat: 0 for the manifest's folds, otherwise the number of a new random split.
            seed: seed of the new splits.
            holdout: train on the hold-out, too.
        """
        table = self.patches.table
        column = table["fold"]
        if repeat:
            slides = self.slides
            drawn = draw_folds(
                slides["label"].tolist(), slides["group"].tolist(), folds=len(self.folds), seed=seed + repeat
            )
            named = dict(zip(np.unique(drawn), self.folds, strict=True))  # with few groups some fold numbers are unused
            names = dict(zip(slides["slide_id"], (named[number] for number in drawn), strict=True))
            column = table["slide_id"].map(names).fillna(HOLDOUT)
        train = np.flatnonzero((column != fold) & (holdout | (column != HOLDOUT))).astype(np.int64)
        return train, np.flatnonzero(column == fold).astype(np.int64)

    @property
    def slides(self) -> pd.DataFrame:
        """The slides with patches, without the hold-out: one row of the manifest each."""
        return self.slides_of(self.all_rows())

    def slides_of(self, rows: Rows) -> pd.DataFrame:
        """The slides of these rows: one row of the manifest each."""
        return self.patches.table.iloc[rows].drop_duplicates("slide_id")


def training_parts(manifest: Manifest, views: Iterable[str], *, cache: Path, data: str = "") -> dict[str, TrainingPart]:
    """The part of every view, in the given order; see `training_part`."""
    return {view: training_part(manifest, view, cache=cache, data=data) for view in views}


def training_part(manifest: Manifest, view: str, *, cache: Path, data: str = "") -> TrainingPart:
    """The kept patches of a view as samples; refuses a manifest with a group on both sides of a split.

    Args:
        manifest: the patch manifest.
        view: of `PatchSettings.views`.
        cache: folder of the pixel cache.
        data: folder or zip of the slides, if they have moved.
    """
    patches = load_patches(manifest, view=view, cache=cache, data=data)
    table = patches.table
    slides = table.drop_duplicates("slide_id")
    check_no_leakage(slides["fold"].tolist(), slides["group"].tolist())
    classes = sorted(table.loc[table["fold"] != HOLDOUT, "label"].unique())
    if len(classes) < 2:
        raise CohortError(f"train: the training folds contain {len(classes)} class(es); at least two are needed")
    if lost := sorted(set(manifest.rows["label"]) - set(classes)):
        raise CohortError(
            f"train: no training slide of {listed(lost)} has a patch that could be cut, so the model would not know it; see "
            "the problems of `patch`, and repair these slides or drop the class"
        )
    position = {label: index for index, label in enumerate(classes)}
    samples = Samples(
        pixels=patches.pixels,
        targets=table["label"].map(position).fillna(-1).to_numpy(np.int64),
        slide_ids=table["slide_id"].to_numpy(str),
        areas=table["area"].to_numpy(np.float64),
        pixels_key=f"{manifest.pixels}-{view}",
    )
    folds = sorted(fold for fold in table["fold"].unique() if fold != HOLDOUT)
    return TrainingPart(patches, samples, classes, folds)
