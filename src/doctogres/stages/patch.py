"""patch: cohort table and slides -> patch manifest and pixel cache."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from doctogres.catalogue import LOCAL, SPARK
from doctogres.cleaning.reading import read_slide
from doctogres.disk import size_text
from doctogres.drawing import class_colours, contact_sheet, overlay
from doctogres.files import file_digest, workspace
from doctogres.names import artifact_name, class_key
from doctogres.patches.cutting import Cutting, cut_cohort, manifest_of, slides_to_cut
from doctogres.patches.manifest import Manifest
from doctogres.patches.parts import FOLDER
from doctogres.patches.pixels import load_patches, record_shares, view_parts
from doctogres.progress import reporter
from doctogres.records.share import Share
from doctogres.records.store import Shares
from doctogres.settings import PatchSettings, Preset
from doctogres.slides.cohort import slide_root
from doctogres.slides.formats import max_pixels
from doctogres.slides.images import encode_png
from doctogres.slides.reasons import by_reason
from doctogres.slides.table import CohortTable
from doctogres.stages.shards import chosen, made_elsewhere, make_share
from doctogres.tracking.datasets import log_table
from doctogres.tracking.runs import PROBLEMS, SLIDES, StageResult, StageRun, run_stage
from doctogres.tracking.sources import code_digest
from doctogres.tracking.store import connect
from doctogres.tracking.upstream import find_artifact

OVERLAYS = 4
TOGETHER = 64  # slides in a task of Spark's: their pixels are a file of tens of megabytes
TILES_PER_CLASS = 24


def patch(
    *,
    cohort: str,
    preset: Preset,
    data: str = "",
    shard: str = "",
    engine: str = LOCAL,
    spark_master: str = "",
    rerun: bool = False,
) -> StageResult:
    """Runs or reuses the stage for a cohort table, or makes a share of it."""
    share = Share.parse(shard)
    if share and not Path(cohort).exists():
        connect()  # no other share needs the store
    upstream = find_artifact(cohort, stage="clean", name="cohort")
    table = CohortTable.read(upstream.path)
    root = slide_root(table.root, data)
    where = chosen(engine, spark_master, hashed=False, together=TOGETHER)
    if share:
        return make_share(_shares(table, root, preset.patch), share, where, rerun=rerun)

    def body(run: StageRun) -> None:
        if shard or engine == SPARK:
            joined = made_elsewhere(_shares(table, root, preset.patch), shard, where, rerun=rerun)
            manifest = manifest_of(table, joined.records.values(), root, preset.patch, source=upstream.uri)
            record_shares(manifest, joined.together, workspace())
        else:
            report = reporter("", "slides")
            manifest, _ = cut_cohort(table, root, preset.patch, cache=workspace(), source=upstream.uri, progress=report)
        manifest.write(run.publish("patches"))
        _record(run, manifest)
        _contact_sheets(run, manifest)
        _overlays(run, manifest, table, root)

    return run_stage(
        "patch",
        body,
        settings=preset.patch.model_dump(),
        inputs={"cohort": file_digest(upstream.path)},
        data_digest=table.data_digest,
        rerun=rerun,
    )


def _shares(cohort: CohortTable, root: Path, settings: PatchSettings) -> Shares:
    slides = slides_to_cut(cohort)
    known = {"patch": settings.model_dump(), "max_pixels": max_pixels(), "files": [slide.hashes for slide in slides]}
    return Shares(
        workspace(), "patch", Cutting(root, settings, workspace()), slides, known, code_digest(Cutting.__module__)
    )


def _record(run: StageRun, manifest: Manifest) -> None:
    kept = pd.concat([manifest.kept_of(view) for view in manifest.patch.views])
    unreadable = manifest.unreadable
    for line in by_reason(zip(unreadable["slide_id"], unreadable["reason"], strict=True)):
        print(f"patch: cannot be cut: {line}", flush=True)
    dropped = len(manifest.rows) - len(kept) - len(unreadable)
    per_slide = kept.groupby("slide_id").size()
    sides = kept[["width", "height"]].max(axis=1)
    run.name(f"{len(kept)} patches of {len(per_slide)} slides")
    views = "; ".join(_described(view, rows) for view, rows in kept.groupby("view", sort=False))
    parts = [part for view in manifest.patch.views for part in view_parts(manifest, view, workspace())]
    size, count = size_text(sum(part.nbytes for part in parts)), f"{len(parts)} part{'s' * (len(parts) > 1)}"
    pixels = f"{size} in {count} in {workspace() / FOLDER}"
    print(f"patch: the pixels take {pixels}", flush=True)
    run.note(
        f"Cut {len(kept)} patches from {len(per_slide)} slides: {views}. {dropped} regions were too small and were dropped. "
        f"The pixels take {pixels}."
        + f" {len(unreadable)} slides cannot be read; see their rows."
        * bool(len(unreadable))
    )
    run.log_metrics(
        {
            SLIDES: len(per_slide),
            "patches/kept": len(kept),
            "patches/dropped": dropped,
            PROBLEMS: len(unreadable),
            "patches/per_slide_median": float(per_slide.median()),
            "patches/box_side_median_px": float(sides.median()),
            **{
                f"patches_of/{class_key(str(label))}": float(count)
                for label, count in kept["label"].value_counts().items()
            },
        }
    )
    log_table(manifest.rows, name="patches", source=manifest.cohort, context="patching", targets="label")


def _described(view: object, rows: pd.DataFrame) -> str:
    per_slide, sides = rows.groupby("slide_id").size(), rows[["width", "height"]].max(axis=1)
    return f"{len(rows)} {view} (median {per_slide.median():.0f} per slide, side {sides.median():.0f} px)"


def _contact_sheets(run: StageRun, manifest: Manifest) -> None:
    patches = load_patches(manifest, cache=workspace())
    for number, (label, rows) in enumerate(patches.table.groupby("label")):
        chosen = rows.index[np.linspace(0, len(rows) - 1, min(TILES_PER_CLASS, len(rows))).astype(int)]
        captions = [str(patches.table.loc[index, "patch_id"]) for index in chosen]
        sheet = contact_sheet([patches.pixels[index] for index in chosen], captions, columns=8, tile=112)
        run.attach(f"contact_sheets/{number}_{artifact_name(str(label))}.png").write_bytes(encode_png(sheet))


def _overlays(run: StageRun, manifest: Manifest, cohort: CohortTable, root: Path) -> None:
    patches = manifest.kept
    slides = cohort.usable[cohort.usable["slide_id"].isin(patches["slide_id"])]
    colours = class_colours(sorted(slides["label"].unique()))
    row: Any
    for row in slides.groupby("label").head(1).head(OVERLAYS).itertuples(index=False):
        slide, mask, _ = read_slide(root, row)
        kept = patches[patches["slide_id"] == row.slide_id]
        boxes = kept[["x", "y", "width", "height"]].to_numpy(np.int64)
        areas, shades = [str(area) for area in kept["area"]], [colours[row.label]] * len(boxes)
        picture = overlay(slide.working, boxes, areas, shades, mask, slide.size)
        path = run.attach(f"overlays/{artifact_name(row.slide_id)}.png")
        path.write_bytes(encode_png(picture))
