"""How many wrong masks are doubted, and how many right ones; and what the judgement adds to cutting a slide.

    python -m benchmarks.masks COHORT

The range of the masks is that of every second slide; the others are judged, with and without it. Slides that cleaning
drops or marks are left out.
"""

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from doctogres.cleaning.cohort import clean_cohort
from doctogres.patches.manifest import read_slide
from doctogres.patches.regions import cut_patches, find_patches
from doctogres.settings import CleanSettings, PatchSettings
from doctogres.slides.plausibility import MaskRange, doubt_about, fit_of
from doctogres.slides.table import KEPT

Mask = npt.NDArray[np.bool_]
SETTINGS: Final = PatchSettings()


def kinds(mask: Mask, other: Mask) -> dict[str, Mask]:
    """The slide's own mask, and what may be given in its place; `other` is another slide's."""
    rows = np.linspace(0, len(other) - 1, len(mask)).round().astype(int)
    columns = np.linspace(0, other.shape[1] - 1, mask.shape[1]).round().astype(int)
    return {
        "right": mask,
        "inverted": ~mask,
        "all white": np.ones_like(mask),
        "by 180 degrees": mask[::-1, ::-1],
        "upside down": mask[::-1],
        "left to right": mask[:, ::-1],
        "another slide's": other[np.ix_(rows, columns)],
    }


def sides_of(mask: Mask) -> npt.NDArray[np.int64]:
    """The longer sides of the regions that become patches."""
    regions, kept, _ = find_patches(mask, SETTINGS)
    return np.asarray(regions[kept, 2:4].max(axis=1))


def seconds(work: Callable[[Any], object], items: Iterable[Any]) -> float:
    """For all items, by one thread."""
    started = time.perf_counter()
    for item in items:
        work(item)
    return time.perf_counter() - started


def main(data: str) -> None:
    """Prints the table."""
    table = clean_cohort(Path(data), CleanSettings(), seed=7).table
    plain = table[table["outcome"] == KEPT]
    slides = [read_slide(Path(data), row) for row in plain.itertuples(index=False)]
    trained = MaskRange.of([(fit_of(*slide), sides_of(slide[1]), "") for slide in slides[::2]])
    judged = slides[1::2]
    doubted: dict[str, list[tuple[bool, bool]]] = {}
    for index, (rgb, mask) in enumerate(judged):
        for kind, given in kinds(mask, judged[index - 1][1]).items():
            fit, sides = fit_of(rgb, np.ascontiguousarray(given)), sides_of(np.ascontiguousarray(given))
            doubted.setdefault(kind, []).append((bool(doubt_about(fit)), bool(doubt_about(fit, trained, sides))))
    print(f"{len(plain)} of {len(table)} slides are kept, {len(judged)} of them judged\n")
    print("| mask | doubted without a model | doubted by a model of the cohort |\n|---|---|---|")
    for kind, told in doubted.items():
        alone, known = np.mean(told, axis=0)
        print(f"| {kind} | {alone:.0%} | {known:.0%} |")

    def cut(row: Any) -> None:
        rgb, mask = read_slide(Path(data), row)
        regions, kept, _ = find_patches(mask, SETTINGS)
        cut_patches(rgb, regions[kept], SETTINGS)

    rows = list(plain.itertuples(index=False))[1::2]
    shares = [seconds(lambda slide: fit_of(*slide), judged) / seconds(cut, rows) for _ in range(5)]
    print(f"\njudging takes {np.median(shares):.0%} of the time of reading and cutting a slide (median of 5)")


if __name__ == "__main__":
    main(sys.argv[1])
