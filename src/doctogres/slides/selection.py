"""The slides of a part of the cohort: the hold-out, a fold, or the labelled test slides."""

from collections.abc import Collection
from pathlib import Path
from typing import Final

import pandas as pd

from doctogres.errors import CohortError, listed
from doctogres.slides.cohort import file_hashes, find_slides, find_test_labels
from doctogres.slides.layout import TEST_LABELS
from doctogres.slides.reasons import by_reason
from doctogres.slides.splits import HOLDOUT
from doctogres.slides.table import DROPPED

TEST: Final = "test"
SPLIT_NAMES: Final = {HOLDOUT: "hold-out"}  # as in "the hold-out slides", where it is not the split's own name
CONTENT: Final = ("image_md5", "mask_md5", "outcome")  # what a slide's answer comes from


def slides_of(usable: pd.DataFrame, root: Path, split: str, *, ignore_columns: Collection[str] = ()) -> pd.DataFrame:
    """The slides of a split: `holdout` or a fold of the usable slides, or `test`: the test slides with their own labels."""
    if split != TEST:
        slides = usable[usable["fold"] == split]
        if slides.empty:
            raise CohortError(
                f"split={split}: no usable slide has it; choose holdout, test or a fold of the cohort table"
            )
        return slides.reset_index(drop=True)
    return _test_slides(root, ignore_columns)


def _test_slides(root: Path, ignore_columns: Collection[str]) -> pd.DataFrame:
    """The labelled test slides, with what `clean` finds out of the training slides' files."""
    path = root / TEST_LABELS
    if not path.is_file():
        raise CohortError(f"split=test: {path} does not exist; the test slides can be scored only with their labels")
    slides = find_slides(root, labelled=False).drop(columns=["label", "group"])
    labels = find_test_labels(root, ignore_columns=ignore_columns)
    unknown = sorted(labels.keys() - set(slides["slide_id"]))
    twice = sorted(slide for slide, lines in labels.items() if len(lines) > 1)
    for problem, names in (("have no files", unknown), ("have several lines", twice)):
        if names:
            raise CohortError(f"split=test: slides of {path.name} {problem}: {listed(names)}; mend the table")
    unlabelled = len(slides) - len(labels)
    slides = slides[slides["slide_id"].isin(labels.keys())].reset_index(drop=True)
    if unlabelled:
        print(f"evaluate: {unlabelled} test slides have no label in {path.name} and are not scored", flush=True)
    if (lost := slides[slides["outcome"] == DROPPED]).size:
        reasons = by_reason(zip(lost["slide_id"], lost["reason"], strict=True))
        raise CohortError(
            f"split=test: labelled slides cannot be scored: {'; '.join(reasons)}; mend or leave out their lines"
        )
    slides["label"] = [labels[slide][0].label for slide in slides["slide_id"]]
    slides["group"] = [labels[slide][0].group or slide for slide in slides["slide_id"]]
    for column in ("image", "mask"):
        slides[f"{column}_md5"] = slides[column].map(file_hashes(root, slides[column]))
    return slides
