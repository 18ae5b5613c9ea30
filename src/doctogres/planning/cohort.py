"""What is known of a cohort before any slide is opened."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from doctogres.files import digest_of
from doctogres.planning.choice import Cohort
from doctogres.slides.cohort import find_slides
from doctogres.slides.layout import LABELS, PARTS, TEST, TRAINING
from doctogres.slides.subgroups import AUTO
from doctogres.slides.table import KEPT
from doctogres.synthetic.cohort import MARKER


@dataclass(frozen=True)
class Found:
    """A cohort as it lies on the disk.

    Attributes:
        root: its folder.
        cohort: what the choice of a preset depends on.
        slides: the training slides that have picture, mask and label, as of `find_slides`.
    """

    root: Path
    cohort: Cohort
    slides: pd.DataFrame


def find_cohort(
    root: Path, *, ignore_columns: Collection[str] = (), subgroups: str = AUTO, annotations: str = ""
) -> Found:
    """Looks at the folder of a cohort; the other arguments are those of `find_slides`.

    Raises:
        CohortError: see `find_slides`.
    """
    has_test = (root / TEST).is_dir()
    if has_test and not (root / TRAINING).is_dir() and not (root / LABELS).is_file():
        slides = pd.DataFrame({"slide_id": [], "label": [], "group": []})
    else:
        found = find_slides(root, ignore_columns=ignore_columns, subgroups=subgroups, annotations=annotations)
        slides = found[found["outcome"] == KEPT].reset_index(drop=True)
    cohort = Cohort(
        classes={str(label): int(count) for label, count in slides["label"].value_counts(sort=False).items()},
        groups=int(slides["group"].fillna(slides["slide_id"]).nunique()),
        test=len(find_slides(root, labelled=False, annotations=annotations)) if has_test else 0,
        drawn=is_drawn(root),
    )
    return Found(root, cohort, slides)


def is_drawn(root: Path) -> bool:
    """Whether `demo_data` drew the slides: it leaves a file in the folder, which copies and zips of the folder have, too.

    The folder of a cohort.csv only links to its slides (`listed_cohort`): the file then lies beside or above them.
    """
    linked = [(root / part).resolve() for part in PARTS if (root / part).is_symlink()]
    return any((folder / MARKER).is_file() for folder in (root, *linked, *(target.parent for target in linked)))


def state_of(found: Found) -> str:
    """A digest of the slides that a cohort has, without reading them: names, labels, patients and sizes of the files."""
    sizes = [(found.root / str(name)).stat().st_size for name in found.slides["image"]] if len(found.slides) else []
    return digest_of(found.slides.to_csv(index=False), sizes, found.cohort.test)
