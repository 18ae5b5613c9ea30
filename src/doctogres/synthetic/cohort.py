"""Write a planned cohort to disk: pictures, masks, tables, and a marker file that identifies the folder."""

from __future__ import annotations

import csv
import json
import multiprocessing
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from doctogres.engine import default_workers
from doctogres.files import partial_beside
from doctogres.progress import counted
from doctogres.synthetic.cartoon import with_cartoon
from doctogres.synthetic.noise import Bytes
from doctogres.synthetic.plan import LABELS, SlidePlan, plan_cohort
from doctogres.synthetic.slide import draw_slide
from doctogres.synthetic.splat import with_splat

# Raise this whenever the same seed would give different bytes.
GENERATOR_VERSION: Final = 1
MARKER: Final = "cohort.json"
# Run-length encoding: for grainy pictures smaller and faster than the default deflate strategy.
PNG_SETTINGS: Final = (cv2.IMWRITE_PNG_COMPRESSION, 3, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)


@dataclass(frozen=True)
class CohortSummary:
    """A summary of the cohort.

    Attributes:
        folder: The cohort's folder.
        train: Number of training slides, including contaminated copies.
        test: Number of test slides.
        cartoons: Number of training slides that are cartoons.
        splats: Number of training slides with a splat.
        labels: Number of genuine training slides per subtype.
    """

    folder: Path
    train: int
    test: int
    cartoons: int
    splats: int
    labels: dict[str, int]


def make_cohort(target: Path, *, slides: int = 100, seed: int = 7, workers: int | None = None) -> CohortSummary:
    """Create a cohort in the folder `target`, in the challenge's layout.

    The same `slides` and `seed` give the same bytes for any number of `workers`. Everything is written to a hidden folder
    beside `target`, which is renamed at the end.

    Args:
        target: Folder to create; an earlier cohort written by this function is replaced.
        slides: Total number of training and test slides, including contaminated copies; at least 12.
        seed: Any non-negative number.
        workers: Number of processes; None for one per available core.

    Returns:
        A summary of the cohort.

    Raises:
        ValueError: `target` exists and was not written by this function, or `slides` is too small.
    """
    plan = plan_cohort(slides, seed)
    # If `target` is a link, the folder it points to is written and replaced.
    place = target.resolve()
    _refuse_foreign(place)
    with partial_beside(place) as draft:
        for split in ("train_data", "test_data"):
            (draft / split).mkdir(parents=True)
        _draw_all(plan, seed, draft, workers or default_workers())
        _write_tables(draft, plan)
        marker = {"slides": slides, "seed": seed, "generator_version": GENERATOR_VERSION}
        (draft / MARKER).write_text(json.dumps(marker, indent=2) + "\n", encoding="utf-8")
        _put_in_place(draft, place)
    return _summary(target, plan)


def _refuse_foreign(target: Path) -> None:
    """Raise ValueError unless `target` does not exist or contains an earlier cohort."""
    if not target.exists():
        return
    try:
        marker = json.loads((target / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        marker = None
    if not isinstance(marker, dict) or not {"slides", "seed", "generator_version"} <= marker.keys():
        raise ValueError(
            f"{target} exists and is not a demo cohort (no {MARKER} written by demo_data), so it was not changed; "
            "name another folder, or move this one away"
        )


def _put_in_place(draft: Path, target: Path) -> None:
    """Rename the finished draft; an earlier cohort is removed only once the new one is complete."""
    _refuse_foreign(target)
    if target.exists():
        old = draft.with_name(f"{draft.name}-old")
        target.rename(old)
        draft.rename(target)
        shutil.rmtree(old)
    else:
        draft.rename(target)


def _draw_all(plan: Sequence[SlidePlan], seed: int, folder: Path, workers: int) -> None:
    """Draw every slide; a genuine slide and its contaminated copies are one task."""
    families: dict[int, list[SlidePlan]] = {}
    for slide in plan:
        families.setdefault(slide.source, []).append(slide)
    draw = partial(_draw_family, seed=seed, folder=folder)
    if workers == 1:
        threads = cv2.getNumThreads()
        _one_thread()
        try:
            for family in families.values():
                draw(family)
        finally:
            cv2.setNumThreads(threads)
        return
    # "spawn" works on every system and alongside the caller's threads; "fork" does not.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(families)), mp_context=context, initializer=_one_thread) as pool:
        drawn = pool.map(draw, families.values(), chunksize=4)
        for _ in counted(drawn, "drawing", "slides with their copies", len(families)):
            pass


def _one_thread() -> None:
    cv2.setNumThreads(1)


def _draw_family(family: Sequence[SlidePlan], *, seed: int, folder: Path) -> None:
    """Draw one genuine slide and its copies."""
    source = family[0].source
    genuine = next(slide for slide in family if slide.kind == "genuine")
    # One random stream per slide, derived from seed and slide: the result does not depend on the order of work.
    drawing, spoiling = np.random.SeedSequence(seed, spawn_key=(1, source)).spawn(2)
    original = draw_slide(np.random.default_rng(drawing), genuine.label)
    rng = np.random.default_rng(spoiling)
    for slide in family:
        picture, mask = original.picture, original.mask
        if slide.kind == "shrek":
            picture = with_cartoon(rng, picture, original.depth)
        elif slide.kind == "slime":
            picture, mask = with_splat(rng, picture, mask)
        split = folder / f"{slide.split}_data"
        _write_png(split / slide.image_name, np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), dtype=np.uint8))
        _write_png(split / slide.mask_name, mask)


def _write_png(path: Path, pixels: Bytes) -> None:
    done, data = cv2.imencode(".png", pixels, PNG_SETTINGS)
    if not done:
        raise OSError(f"{path.name} could not be encoded as PNG")
    path.write_bytes(data.tobytes())


def _write_tables(folder: Path, plan: Sequence[SlidePlan]) -> None:
    """Write the labels of both splits and the list of contaminated slides."""
    for split in ("train", "test"):
        rows = ((slide.image_name, slide.label) for slide in plan if slide.split == split)
        _write_csv(folder / f"{split}_labels.csv", ("sample_index", "label"), rows)
    spoiled = ((slide.image_name, slide.kind, slide.twin) for slide in plan if slide.kind != "genuine")
    _write_csv(folder / "contaminated.csv", ("sample_index", "kind", "twin"), spoiled)


def _write_csv(path: Path, header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _summary(folder: Path, plan: Sequence[SlidePlan]) -> CohortSummary:
    kinds = Counter(slide.kind for slide in plan)
    labels = Counter(slide.label for slide in plan if slide.split == "train" and slide.kind == "genuine")
    train = sum(slide.split == "train" for slide in plan)
    return CohortSummary(
        folder=folder,
        train=train,
        test=len(plan) - train,
        cartoons=kinds["shrek"],
        splats=kinds["slime"],
        labels={label: labels[label] for label in LABELS},
    )
