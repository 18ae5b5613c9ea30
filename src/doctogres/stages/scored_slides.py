"""The slides that an evaluation scores: a split of a cleaned cohort, or an outside cohort."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from doctogres.engine import map_slides
from doctogres.files import digest_of, file_digest
from doctogres.remote import is_address
from doctogres.slides.cohort import slide_root
from doctogres.slides.labels import column_names
from doctogres.slides.opening import open_slide
from doctogres.slides.resolution import parsed_mpp
from doctogres.slides.selection import CONTENT, is_outside, outside_cohort, slides_of
from doctogres.slides.splits import HOLDOUT
from doctogres.slides.subgroups import subgroup_columns
from doctogres.slides.table import CohortTable
from doctogres.tracking.upstream import find_artifact


@dataclass(frozen=True)
class ScoredSlides:
    """What is scored.

    Attributes:
        split: holdout, test, a fold, or the absolute path or address of an outside cohort.
        slides: with the columns of `selection.slides_of`.
        root: the folder of their files.
        source: where they are from, for the run's page.
        data_digest: of the cohort's content.
        cohort: digest of the cohort table; empty for an outside cohort, which has none.
        training_labels: of the cohort's slides outside the hold-out; None for an outside cohort.
    """

    split: str
    slides: pd.DataFrame
    root: Path
    source: str
    data_digest: str
    cohort: str = ""
    training_labels: list[str] | None = None

    def with_digests(self) -> pd.DataFrame:
        """slide_id, image_sha256 and mask_sha256, as in the answer log."""
        found = self.slides[["slide_id"]].copy()
        for column in ("image", "mask"):
            files = [self.root / name for name in self.slides[column]]
            found[f"{column}_sha256"] = list(
                map_slides(lambda path: file_digest(path, algorithm="sha256", length=None), files)
            )
        return found

    @property
    def inputs(self) -> dict[str, str]:
        """Their digests, for the fingerprint of a stage."""
        columns = ["slide_id", "annotations", "label", "group", "mpp", *CONTENT, *subgroup_columns(self.slides)]
        slides = digest_of(self.slides[columns].to_csv(index=False))
        return ({"cohort": self.cohort} if self.cohort else {}) | {"slides": slides}


def scored_slides(
    split: str, cohort: str, *, data: str, ignore_columns: str, subgroups: str, annotations: str, mpp: str = ""
) -> ScoredSlides:
    """The slides that these parameters of `evaluate` name; an outside cohort needs no cohort table.

    `mpp` are the microns per pixel of slides whose files and table say none.

    Raises:
        DoctogresError: there are none, or one of them cannot be scored; names the parameter.
    """
    ignored, of_unstated = column_names(ignore_columns), parsed_mpp(mpp)
    if is_outside(split):
        place = split if is_address(split) else str(Path(split).expanduser().resolve())
        found = outside_cohort(place, ignore_columns=ignored, subgroups=subgroups, annotations=annotations)
        slides = _with_mpp(found.slides, found.root, of_unstated)
        return ScoredSlides(place, slides, found.root, place, found.data_digest)
    upstream = find_artifact(cohort, stage="clean", name="cohort")
    table = CohortTable.read(upstream.path)
    root = slide_root(table.root, data)
    slides = slides_of(table.usable, root, split, ignore_columns=ignored, subgroups=subgroups)
    slides, training = _with_mpp(slides, root, of_unstated), table.usable
    labels = training.loc[training["fold"] != HOLDOUT, "label"].tolist()
    return ScoredSlides(split, slides, root, upstream.uri, table.data_digest, file_digest(upstream.path), labels)


def _with_mpp(slides: pd.DataFrame, root: Path, mpp: float | None) -> pd.DataFrame:
    """The slides with these microns per pixel where neither the table nor the file says any."""
    if mpp is None:
        return slides
    unknown = slides["mpp"].isna()
    own = [open_slide(root / name).unless_known(mpp).mpp for name in slides.loc[unknown, "image"]]
    return slides.assign(mpp=slides["mpp"].astype(float).mask(unknown, pd.Series(own, slides.index[unknown], float)))
