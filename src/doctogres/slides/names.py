r"""Which slide a table means by a name: a path, a name without its suffix, a number that lost its zeros.

A name means a slide where only one fits, by the first of these rules that finds any:

1. the name without folders (`train_data/`, `C:\slides\`) and picture suffix is the slide's, or else with the suffix: `a.svs.png` is
   the picture of `a.svs`;
2. it is in another Unicode form, or in other case;
3. it lacks the prefix `img_` or leading zeros: `2`, `2.0`, `img_2` and `0002.png` mean `img_0002`.
"""

import posixpath
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final

from doctogres.errors import DoctogresError, listed
from doctogres.slides.layout import PARTS, SLIDE_SUFFIXES
from doctogres.slides.spelling import folded

PREFIX: Final = "img_"


class NameProblem(DoctogresError):
    """A name that does not mean one slide for certain; who knows its row says where it stands."""

    def __init__(self, problem: str, remedy: str):
        super().__init__(f"{problem}; {remedy}")
        self.problem, self.remedy = problem, remedy


def stem_and_suffix(path: str) -> tuple[str, str]:
    """Of a path with slashes; the suffix in small letters. A `PurePosixPath` would keep the names of a cohort in memory."""
    stem, suffix = posixpath.splitext(posixpath.basename(path))
    return stem, suffix.lower()


def slide_name(sample: str) -> str:
    """The slide_id of a sample as people write it, `img_0001` or `img_0001.png`."""
    sample = sample.strip()
    known = PurePosixPath(sample).suffix.lower() in SLIDE_SUFFIXES
    return PurePosixPath(sample).stem if known else sample


def written_path(sample: str) -> PurePosixPath:
    """A path as people write it, with the slashes of any system."""
    return PurePosixPath(sample.strip().replace("\\", "/"))


class SlideNames:
    """Finds the slides that names mean."""

    def __init__(self, slides: Collection[str], folder: str):
        """Takes the slides that are there and the name of the folder that they lie in."""
        self.folder = folder
        self.exact = set(slides)
        self.rules = [(rule, _by_key(slides, rule)) for rule in (folded, _loose)]

    def slide(self, sample: str) -> str | None:
        """The slide that a name means; None where none fits.

        Raises:
            NameProblem: several fit, or the name is a path to another part of the cohort.
        """
        path = written_path(sample)
        if path.parent.name in PARTS and path.parent.name != self.folder:
            raise NameProblem(f"lies in {path.parent.name}, not in {self.folder}", "remove the folder from the name")
        for whole in (sample, path.name):
            for name in (slide_name(whole), whole):  # the first is that of a file, which may have a thumbnail beside it
                if name in self.exact:
                    return name
        for rule, slides in self.rules:
            keys = dict.fromkeys((rule(slide_name(path.name)), rule(path.name)))
            fitting = [slide for key in keys for slide in slides.get(key, [])]
            if len(fitting) > 1:
                raise NameProblem(f"may mean {listed(fitting, separator=' or ')}", "write the picture's full name")
            if fitting:
                return fitting[0]
        return None


def shifted(samples: Mapping[str, str | None], slides: Collection[str]) -> str | None:
    """The first name that is only a number and means no slide, where other numbers do and slides are left over.

    Then the numbers may count the pictures from 1 and not be their names, so that each would mean the wrong one.
    """
    numbers = {sample: slide for sample, slide in samples.items() if re.fullmatch(r"\d+(\.0)?", sample)}
    left = set(slides) - {slide for slide in samples.values() if slide}
    lost = [sample for sample, slide in numbers.items() if slide is None]
    return lost[0] if lost and left and len(lost) < len(numbers) else None


def folders_of(samples: Sequence[str]) -> set[str]:
    """The different folders that names of one slide begin with."""
    return {folder for sample in samples if (folder := written_path(sample).parent.as_posix()) != "."}


def _by_key(slides: Collection[str], rule: Callable[[str], str]) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = {}
    for slide in sorted(slides):
        keys.setdefault(rule(slide), []).append(slide)
    return keys


def _loose(name: str) -> str:
    name = re.sub(r"^(\d+)\.0$", r"\1", folded(name).removeprefix(PREFIX))
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)
