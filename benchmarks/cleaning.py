"""`python -m benchmarks.cleaning FOLDER`: cleaning and cutting a cohort against decoding its files once.

Repeats are interleaved, and every ratio is taken within one repeat, because a machine's speed changes with its load.
"""

import argparse
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path
from statistics import median
from typing import Any, Final, ParamSpec, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.cleaning.cohort import CleanResult, clean_cohort
from doctogres.cleaning.reading import read_slide
from doctogres.engine import default_workers, one_cv2_thread
from doctogres.patches.crops import cut_patches
from doctogres.patches.cutting import cut_cohort
from doctogres.patches.regions import find_patches, mask_regions
from doctogres.presets import load_preset
from doctogres.settings import PatchSettings, Preset
from doctogres.slides.cohort import content_digest, file_hashes, find_slides, slide_files
from doctogres.slides.table import KEPT, CohortTable, usable

SEED: Final = 7
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """Seconds of one repeat: on the wall, and of all cores together."""

    wall: float
    cpu: float


def measure(work: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def decode(root: Path, slides: pd.DataFrame, threads: int) -> None:
    """What nothing can be faster than: every picture and mask decoded once, and dropped."""
    files = [(root, *names) for names in slides[["image", "mask"]].itertuples(index=False, name=None)]
    with ThreadPool(threads) as pool:
        pool.starmap(decode_one, files, chunksize=1)


def decode_one(root: Path, image: str, mask: str) -> None:
    """Decodes one slide's files."""
    cv2.imread(str(root / image))
    cv2.imread(str(root / mask), cv2.IMREAD_UNCHANGED)


def clean_stage(root: Path, preset: Preset, folder: Path) -> None:
    """The clean stage without MLflow: digest of the files, cleaning, its table and its audit page."""
    hashes = file_hashes(root, ["train_labels.csv", *slide_files(root, find_slides(root))])
    result = clean_cohort(root, preset.clean, seed=SEED, hashes=hashes)
    CohortTable(result.table, root, content_digest(hashes)).write(folder / "cohort.parquet")
    (folder / "audit.html").write_text(result.audit_html, encoding="utf-8")


def patch_stage(root: Path, table: pd.DataFrame, preset: Preset, folder: Path) -> None:
    """The patch stage without MLflow: manifest and pixel cache."""
    manifest, _ = cut_cohort(CohortTable(table, root, ""), root, preset.patch, cache=folder / "cache")
    manifest.write(folder / "patches.parquet")


def stages(root: Path, preset: Preset, result: CleanResult, repeats: int) -> list[str]:
    """Rows: bare decoding and our stages, all cores on both sides."""
    found = find_slides(root)
    found, left = found[found["outcome"] == KEPT], usable(result.table)
    cores = default_workers()
    costs: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        works: dict[str, Callable[[], object]] = {
            "decode": lambda: decode(root, found, cores),
            "clean": lambda: clean_cohort(root, preset.clean, seed=SEED),
            "clean_stage": lambda: clean_stage(root, preset, folder),
            "decode_left": lambda: decode(root, left, cores),
            "patch": lambda: patch_stage(root, result.table, preset, folder),
        }
        for repeat in range(repeats + 1):  # the first one warms the caches and is not counted
            for name, work in works.items():
                cost = measure(work)
                shutil.rmtree(folder / "cache", ignore_errors=True)
                if repeat:
                    costs.setdefault(name, []).append(cost)
    row = _Rows(costs)
    return [
        f"All cores ({cores}), {repeats} interleaved repeats; in brackets the smallest and the largest.",
        "",
        "| what | slides | seconds | ms per slide | times bare decoding | the same in CPU time |",
        "|---|---|---|---|---|---|",
        row.of("decode", "bare decoding of all pictures and masks", len(found)),
        row.of("clean", "`clean_cohort`", len(found), against="decode"),
        row.of("clean_stage", "digest, `clean_cohort`, table and audit page", len(found), against="decode"),
        row.of("decode_left", "bare decoding of what cleaning left", len(left)),
        row.of("patch", "`cut_cohort`, pixel cache and manifest", len(left), against="decode_left"),
    ]


@dataclass(frozen=True)
class _Rows:
    costs: dict[str, list[Cost]]

    def of(self, name: str, title: str, slides: int, *, against: str = "") -> str:
        own = self.costs[name]
        seconds = [cost.wall for cost in own]
        ratios = ["", ""]
        if against:
            pairs = list(zip(own, self.costs[against], strict=True))
            ratios = [
                _spread([cost.wall / bare.wall for cost, bare in pairs]),
                _spread([cost.cpu / bare.cpu for cost, bare in pairs]),
            ]
        per_slide = 1e3 * median(seconds) / slides
        return f"| {title} | {slides} | {_spread(seconds)} | {per_slide:.2f} | {ratios[0]} | {ratios[1]} |"


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def notebook_regions(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The regions as the challenge's notebooks find them: the whole label image compared once per region."""
    count, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    regions = []
    for label in range(1, count):
        ys, xs = np.where(labels == label)
        x, y = xs.min(), ys.min()
        regions.append((x, y, xs.max() - x + 1, ys.max() - y + 1, len(xs)))
    return np.array(regions, dtype=np.int64).reshape(-1, 5)


def labelled_regions(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """The regions from one labelling pass with OpenCV's statistics."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    return stats[1:].astype(np.int64)


REGION_WAYS: Final[Mapping[str, Callable[[npt.NDArray[np.bool_]], npt.NDArray[np.int64]]]] = {
    "borders followed (`mask_regions`)": mask_regions,
    "one labelling pass with statistics": labelled_regions,
    "the notebooks' way, `labels == i` per region": notebook_regions,
}


def regions_and_crops(root: Path, table: pd.DataFrame, settings: PatchSettings, repeats: int) -> list[str]:
    """Rows: decoding, finding regions in three ways, and cropping; CPU time of one thread."""
    slides = list(usable(table).itertuples(index=False))
    passes: list[dict[str, float]] = []
    counts: list[int] = []
    with one_cv2_thread():
        for _ in range(repeats):
            spent: dict[str, float] = defaultdict(float)
            for slide in slides:
                counts.append(_cut_in_every_way(root, slide, settings, spent))
            passes.append({what: 1e3 * seconds / len(slides) for what, seconds in spent.items()})
    rows = {
        "decoding picture and mask": [spent["decode"] for spent in passes],
        **{f"regions: {way}": [spent[way] for spent in passes] for way in REGION_WAYS},
        f"crops of the kept regions at {settings.patch_size} px": [spent["crops"] for spent in passes],
        **{f"regions and crops: {way}": [spent[way] + spent["crops"] for spent in passes] for way in REGION_WAYS},
    }
    return [
        f"One thread, CPU time, {repeats} repeats; {np.mean(counts):.1f} regions per slide.",
        "",
        "| what | ms per slide |",
        "|---|---|",
        *(f"| {what} | {_spread(values)} |" for what, values in rows.items()),
    ]


def _cut_in_every_way(root: Path, slide: Any, settings: PatchSettings, spent: dict[str, float]) -> int:
    """Adds the seconds of each step to `spent`; returns the number of regions, on which all ways must agree."""
    _timed(spent, "decode", decode_one, root, slide.image, slide.mask)
    rgb, mask, _ = read_slide(root, slide)
    found = [_timed(spent, name, way, mask) for name, way in REGION_WAYS.items()]
    if any(sorted(regions.tolist()) != sorted(found[0].tolist()) for regions in found):
        raise SystemExit(f"{slide.slide_id}: the ways to find regions disagree")
    regions, kept, _ = find_patches(mask, settings)
    _timed(spent, "crops", cut_patches, rgb, regions[kept], settings)
    return len(regions)


def _timed(
    spent: dict[str, float],
    what: str,
    work: Callable[Parameters, Result],
    *given: Parameters.args,
    **named: Parameters.kwargs,
) -> Result:
    start = time.thread_time()
    result = work(*given, **named)
    spent[what] += time.thread_time() - start
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("data/demo"), help="a cohort's folder")
    parser.add_argument("--repeats", type=int, default=9, help="interleaved repeats of the stages")
    parser.add_argument("--preset", default="challenge", help="settings of cleaning and cutting")
    given = parser.parse_args()
    if not given.folder.is_dir():
        parser.error(f"{given.folder} is not there; `make demo` draws data/demo")
    root, preset = given.folder.resolve(), load_preset(given.preset)
    result = clean_cohort(root, preset.clean, seed=SEED)
    print(f"`{given.folder}`, {len(result.table)} slides: {result.outcomes}\n")
    print("\n".join(stages(root, preset, result, given.repeats)), end="\n\n")
    print("\n".join(regions_and_crops(root, result.table, preset.patch, max(3, given.repeats // 3))))


if __name__ == "__main__":
    main()
