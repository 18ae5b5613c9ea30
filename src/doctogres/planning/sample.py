"""A few slides of a cohort, read and cut as the stages do it: what they cost, and how many patches they have."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import numpy.typing as npt

from doctogres.cleaning.evidence import Evidence, Measuring
from doctogres.patches.cutting import CutSlide, cut_slides
from doctogres.patches.parts import FOLDER
from doctogres.planning.cohort import Found
from doctogres.records.slide import Slide, slides_of
from doctogres.settings import Preset

MOST: Final = 16  # slides: more tell the mean number of patches hardly better than to a tenth
AT_ONCE: Final = 4
ENOUGH: Final = 3.0  # seconds, after which no further slides are read
PATCHES: Final = 10


@dataclass(frozen=True)
class Sample:
    """What was found on a few slides.

    Attributes:
        slides: their number; those that cannot be used are not among them.
        usable: their share of all that were tried.
        size: median width and height of a slide in pixels.
        patches: view -> mean number of patches on a slide.
        clean: seconds for a slide in `clean`, with all cores at work.
        cut: seconds for a slide in `patch`.
        pixels: ten patches or fewer, (patches, size, size, 3).
    """

    slides: int
    usable: float
    size: tuple[int, int]
    patches: Mapping[str, float]
    clean: float
    cut: float
    pixels: npt.NDArray[np.uint8]


def sample_slides(found: Found, preset: Preset) -> Sample | None:
    """Reads and cuts a few slides, the same ones every time; None if none of them can be used.

    Args:
        found: the cohort.
        preset: how they are cut.
    """
    if found.slides.empty:
        return None
    slides = slides_of(found.slides)
    order = np.random.default_rng(0).permutation(len(slides))[:MOST].tolist()
    measured: list[Evidence] = []
    cut: list[CutSlide] = []
    spent = [0.0, 0.0]
    with tempfile.TemporaryDirectory() as folder:
        while (few := order[len(measured) : len(measured) + AT_ONCE]) and sum(spent) < ENOUGH:
            started = time.perf_counter()
            evidence = list(Measuring(found.root)([slides[number] for number in few]))
            between = time.perf_counter()
            usable = [
                _hashed(slides[number], one, preset)
                for number, one in zip(few, evidence, strict=True)
                if not one.reason
            ]
            done = cut_slides(usable, found.root, preset.patch, cache=Path(folder))
            cut += [one for one in done if isinstance(one, CutSlide)]
            measured += evidence
            spent = [spent[0] + between - started, spent[1] + time.perf_counter() - between]
        pixels = _pixels(Path(folder) / FOLDER, preset.patch.patch_size)
    if not len(pixels):
        return None
    sides = [(one.width or 0, one.height or 0) for one in measured if not one.reason]
    return Sample(
        slides=len(cut),
        usable=len(cut) / len(measured),
        size=(round(median(width for width, _ in sides)), round(median(height for _, height in sides))),
        patches={view: float(np.mean([one.found[view].kept.sum() for one in cut])) for view in preset.patch.views},
        clean=spent[0] / len(measured),
        cut=spent[1] / len(cut),
        pixels=pixels,
    )


def _hashed(slide: Slide, evidence: Evidence, preset: Preset) -> Slide:
    """The slide as `clean` hands it on."""
    known = {str(slide.image): str(evidence.image_md5)}
    return replace(slide.with_hashes(known), mpp=slide.mpp or evidence.mpp or preset.clean.mpp or None)


def _pixels(folder: Path, size: int) -> npt.NDArray[np.uint8]:
    """The first patches of each file, ten in all or fewer."""
    files: Sequence[Path] = sorted(folder.glob("*.npy"))
    of_each = -(-PATCHES // max(1, len(files)))
    first = [np.array(np.load(file, mmap_mode="r")[:of_each]) for file in files]
    return np.concatenate([np.empty((0, size, size, 3), np.uint8), *first])[:PATCHES]
