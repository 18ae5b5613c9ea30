"""The slides of a part of the cohort (the hold-out, a fold, the labelled test slides), or of an outside cohort."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from doctogres.errors import CohortError, listed
from doctogres.files import workspace
from doctogres.remote import is_address
from doctogres.slides.cohort import content_digest, file_hashes, find_slides, find_test_labels, open_cohort, slide_files
from doctogres.slides.layout import LABELS, TEST_LABELS, contents
from doctogres.slides.reasons import Reason, by_reason
from doctogres.slides.splits import HOLDOUT
from doctogres.slides.subgroups import AUTO, common
from doctogres.slides.table import DROPPED

TEST: Final = "test"
FOLD: Final = re.compile(r"fold\d+")
SPLIT_NAMES: Final = {HOLDOUT: "hold-out"}  # as in "the hold-out slides", where it is not the split's own name
OUTSIDE: Final = "outside"  # before the name of an outside cohort, in metrics
CONTENT: Final = ("image_md5", "mask_md5", "outcome")  # what a slide's answer comes from


@dataclass(frozen=True)
class OutsideCohort:
    """The labelled slides of a folder or zip that no model of this project was made from.

    Attributes:
        slides: with the columns of `slides_of`.
        root: the folder that the files lie in.
        data_digest: of labels and files, as `clean` computes it.
    """

    slides: pd.DataFrame
    root: Path
    data_digest: str


def is_outside(split: str) -> bool:
    """Whether a split is an outside cohort's folder, zip or address; the names of splits go first (`./test` is a folder)."""
    named = split in (HOLDOUT, TEST) or FOLD.fullmatch(split) is not None
    return not named and (is_address(split) or Path(split).expanduser().exists())


def short_name(split: str) -> str:
    """`holdout`, `test`, `fold0`, and of an outside cohort the name of its folder or zip."""
    return Path(split).name.removesuffix(".zip") if _is_place(split) else split


def split_name(split: str) -> str:
    """The same in words, as in "the hold-out slides"."""
    return SPLIT_NAMES.get(split, short_name(split))


def split_key(split: str) -> str:
    """The same before a metric's name: `test`, `outside/NAME`."""
    return f"{OUTSIDE}/{short_name(split)}" if _is_place(split) else split


def _is_place(split: str) -> bool:
    return Path(split).is_absolute() or is_address(split)


def outside_cohort(
    split: str, *, ignore_columns: Collection[str] = (), subgroups: str = AUTO, annotations: str = ""
) -> OutsideCohort:
    """The labelled slides of a folder or zip: those of its train_labels.csv, or without one of its test_labels.csv.

    The other arguments are those of `find_slides`.

    Raises:
        CohortError: it is no cohort, has no labels, or a labelled slide cannot be scored.
    """
    root = open_cohort(split, workspace=workspace())
    if not (root / LABELS).is_file() and not (root / TEST_LABELS).is_file():
        raise CohortError(
            f"split={split} has no labels (it holds {contents(root)}); write them into {LABELS}: docs/your-data.md"
        )
    if (root / LABELS).is_file():
        slides, labels = _training_slides(root, split, ignore_columns, subgroups, annotations), LABELS
    else:
        slides, labels = _test_slides(root, split, ignore_columns, subgroups, annotations), TEST_LABELS
    return OutsideCohort(slides, root, content_digest(file_hashes(root, [labels, *slide_files(root, slides)])))


def slides_of(
    usable: pd.DataFrame, root: Path, split: str, *, ignore_columns: Collection[str] = (), subgroups: str = AUTO
) -> pd.DataFrame:
    """The slides of a split: `holdout` or a fold of the usable slides, or `test`: the test slides with their own labels.

    Outlines of test slides are read as those of the usable slides were.
    """
    if split != TEST:
        slides = usable[usable["fold"] == split]
        if slides.empty:
            raise CohortError(
                f"split={split}: no usable slide has it, and there is no such folder or zip; choose holdout, test, a fold of the "
                "cohort table, or the path of an outside cohort"
            )
        return slides.reset_index(drop=True)
    as_usable = next(filter(None, usable.get("annotations", ())), "")
    return _test_slides(root, split, ignore_columns, subgroups, as_usable)


def _training_slides(
    root: Path, split: str, ignore_columns: Collection[str], subgroups: str, annotations: str
) -> pd.DataFrame:
    """The labelled slides of the training part."""
    slides = find_slides(root, ignore_columns=ignore_columns, subgroups=subgroups, annotations=annotations)
    unlabelled = slides["reason"].map(Reason.of) == Reason.UNLABELLED
    return _scorable(root, split, LABELS, slides[~unlabelled], int(unlabelled.sum()))


def _test_slides(
    root: Path, split: str, ignore_columns: Collection[str], subgroups: str, annotations: str
) -> pd.DataFrame:
    """The labelled slides of the unlabelled part."""
    path = root / TEST_LABELS
    if not path.is_file():
        raise CohortError(f"split={split}: {path} does not exist; the test slides can be scored only with their labels")
    slides = find_slides(root, labelled=False, annotations=annotations)
    labels = find_test_labels(root, ignore_columns=ignore_columns, subgroups=subgroups)
    unknown = sorted(labels.keys() - set(slides["slide_id"]))
    twice = sorted(slide for slide, lines in labels.items() if len(lines) > 1)
    for problem, names in (("have no files", unknown), ("have several lines", twice)):
        if names:
            raise CohortError(f"split={split}: slides of {path.name} {problem}: {listed(names)}; correct the table")
    unlabelled = len(slides) - len(labels)
    slides = slides[slides["slide_id"].isin(labels.keys())].reset_index(drop=True)
    slides["label"] = [labels[slide][0].label for slide in slides["slide_id"]]
    slides["group"] = [labels[slide][0].group or None for slide in slides["slide_id"]]
    slides["mpp"] = [labels[slide][0].mpp for slide in slides["slide_id"]]
    about = pd.DataFrame([common([labels[slide][0].about]) for slide in slides["slide_id"]], index=slides.index)
    slides = slides.join(about)
    return _scorable(root, split, TEST_LABELS, slides, unlabelled)


def _scorable(root: Path, split: str, table: str, slides: pd.DataFrame, unlabelled: int) -> pd.DataFrame:
    """The labelled slides with what `clean` finds out of the training slides' files; a slide without a group is its own."""
    if unlabelled:
        print(
            f"evaluate: {unlabelled} {split_name(split)} slides have no label in {table} and are not scored", flush=True
        )
    if (lost := slides[slides["outcome"] == DROPPED]).size:
        reasons = by_reason(zip(lost["slide_id"], lost["reason"], strict=True))
        raise CohortError(
            f"split={split}: labelled slides cannot be scored: {'; '.join(reasons)}; fix or leave out their lines"
        )
    if slides.empty:
        raise CohortError(f"split={split}: no slide has a label in {table}; enter them")
    slides = slides.reset_index(drop=True)
    slides["group"] = slides["group"].fillna(slides["slide_id"])
    for column in ("image", "mask"):
        slides[f"{column}_md5"] = slides[column].map(file_hashes(root, slides[column]))
    return slides
