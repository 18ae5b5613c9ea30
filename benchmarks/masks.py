"""How many wrong and correct masks are flagged as implausible, and the time that the check takes.

    python -m benchmarks.masks COHORT

The range of the masks comes from every second slide; the others are checked, with and without it. Slides that cleaning
drops or marks for review are left out.
"""

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from doctogres.cleaning.cohort import clean_cohort
from doctogres.cleaning.reading import read_slide
from doctogres.patches.crops import cut_patches
from doctogres.patches.regions import find_patches
from doctogres.settings import CleanSettings, PatchSettings
from doctogres.slides.plausibility import MaskRange, doubt_about, fit_of
from doctogres.slides.table import KEPT

Mask = npt.NDArray[np.bool_]
SETTINGS: Final = PatchSettings()


def kinds(mask: Mask, other: Mask) -> dict[str, Mask]:
    """The slide's own mask, and masks that may be given by mistake; `other` is the mask of another slide."""
    rows = np.linspace(0, len(other) - 1, len(mask)).round().astype(int)
    columns = np.linspace(0, other.shape[1] - 1, mask.shape[1]).round().astype(int)
    return {
        "correct": mask,
        "inverted": ~mask,
        "all white": np.ones_like(mask),
        "rotated by 180 degrees": mask[::-1, ::-1],
        "upside down": mask[::-1],
        "left to right": mask[:, ::-1],
        "of another slide, resized": other[np.ix_(rows, columns)],
    }


def sides_of(mask: Mask) -> npt.NDArray[np.int64]:
    """The longer sides of the regions that become patches."""
    regions, kept, _ = find_patches(mask, SETTINGS)
    return np.asarray(regions[kept, 2:4].max(axis=1))


def seconds(work: Callable[[Any], object], items: Iterable[Any]) -> float:
    """Time for all items, on one thread."""
    started = time.perf_counter()
    for item in items:
        work(item)
    return time.perf_counter() - started


def main(data: str) -> None:
    """Prints the table."""
    table = clean_cohort(Path(data), CleanSettings(), seed=7).table
    plain = table[table["outcome"] == KEPT]
    slides = [read_slide(Path(data), row)[:2] for row in plain.itertuples(index=False)]
    trained = MaskRange.of([(fit_of(*slide), sides_of(slide[1]), "") for slide in slides[::2]])
    checked = slides[1::2]
    flagged: dict[str, list[tuple[bool, bool]]] = {}
    for index, (rgb, mask) in enumerate(checked):
        for kind, given in kinds(mask, checked[index - 1][1]).items():
            fit, sides = fit_of(rgb, np.ascontiguousarray(given)), sides_of(np.ascontiguousarray(given))
            flagged.setdefault(kind, []).append((bool(doubt_about(fit)), bool(doubt_about(fit, trained, sides))))
    print(f"{len(plain)} of {len(table)} slides are kept, {len(checked)} of them checked\n")
    print("| mask | flagged without a range | flagged with the range |\n|---|---|---|")
    for kind, flags in flagged.items():
        without, within = np.mean(flags, axis=0)
        print(f"| {kind} | {without:.0%} | {within:.0%} |")

    def cut(row: Any) -> None:
        rgb, mask, _ = read_slide(Path(data), row)
        regions, kept, _ = find_patches(mask, SETTINGS)
        cut_patches(rgb, regions[kept], SETTINGS)

    rows = list(plain.itertuples(index=False))[1::2]
    shares = [seconds(lambda slide: fit_of(*slide), checked) / seconds(cut, rows) for _ in range(5)]
    print(
        f"\nthe check takes {np.median(shares):.0%} of the time of reading a slide and extracting its patches (median of 5)"
    )


if __name__ == "__main__":
    main(sys.argv[1])
