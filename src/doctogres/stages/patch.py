"""patch: the cohort table and its slides -> the patch manifest and the pixel cache."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from doctogres import images
from doctogres.cohort import open_cohort, read_table, usable
from doctogres.datasets import log_table
from doctogres.errors import CohortError
from doctogres.evaluation.pictures import class_colours, contact_sheet, overlay
from doctogres.patches import KEPT, cut_cohort, load_patches, read_slide, write_manifest
from doctogres.progress import reporter
from doctogres.settings import Preset
from doctogres.stages import workspace
from doctogres.tracking import StageResult, StageRun, file_digest, run_stage
from doctogres.upstream import find_artifact

OVERLAYS = 4
TILES_PER_CLASS = 24


def slide_root(cohort: pd.DataFrame, data: str) -> Path:
    """The folder of the slides: `data` where given, else where `clean` saw them."""
    if data:
        return open_cohort(data, workspace=workspace())
    root = Path(cohort.attrs["root"])
    if not root.is_dir():
        raise CohortError(f"{root}: the slides are no longer there; give data=FOLDER_OR_ZIP")
    return root


def patch(*, cohort: str, preset: Preset, data: str = "", force: bool = False) -> StageResult:
    """Runs or reuses the stage for a cohort table."""
    upstream = find_artifact(cohort, stage="clean", name="cohort", file="cohort.parquet")
    table = read_table(upstream.path)
    root = slide_root(table, data)

    def body(run: StageRun) -> None:
        manifest, _ = cut_cohort(table, root, preset.patch, cache=workspace(), progress=reporter("patch", "slides"))
        manifest.attrs["cohort"] = upstream.uri
        write_manifest(manifest, run.publish("patches", "patches.parquet"))
        _record(run, manifest, upstream.uri)
        _contact_sheets(run, manifest)
        _overlays(run, manifest, table, root)

    return run_stage(
        "patch",
        body,
        settings=preset.patch.model_dump(),
        inputs={"cohort": file_digest(upstream.path)},
        data_digest=table.attrs["data_digest"],
        force=force,
    )


def _record(run: StageRun, manifest: pd.DataFrame, source: str) -> None:
    kept = manifest[manifest["outcome"] == KEPT]
    per_slide = kept.groupby("slide_id").size()
    sides = kept[["width", "height"]].max(axis=1)
    run.name(f"patch · {len(kept)} patches of {len(per_slide)} slides")
    run.note(
        f"Cut {len(kept)} patches from {len(per_slide)} slides (median {per_slide.median():.0f} a slide, median box side "
        f"{sides.median():.0f} px). {len(manifest) - len(kept)} regions were too small and are listed as dropped."
    )
    run.log_metrics(
        {
            "patches/kept": len(kept),
            "patches/dropped": len(manifest) - len(kept),
            "patches/per_slide_median": float(per_slide.median()),
            "patches/box_side_median_px": float(sides.median()),
            **{f"patches_of/{label}": float(count) for label, count in kept["label"].value_counts().items()},
        }
    )
    log_table(manifest, name="patches", source=source, context="patching", targets="label")


def _contact_sheets(run: StageRun, manifest: pd.DataFrame) -> None:
    patches = load_patches(manifest, cache=workspace())
    for number, (label, rows) in enumerate(patches.table.groupby("label")):
        chosen = rows.index[np.linspace(0, len(rows) - 1, min(TILES_PER_CLASS, len(rows))).astype(int)]
        captions = [str(patches.table.loc[index, "patch_id"]) for index in chosen]
        sheet = contact_sheet([patches.pixels[index] for index in chosen], captions, columns=8, tile=112)
        safe = "".join(letter if letter.isalnum() else "_" for letter in str(label))
        run.attach(f"contact_sheets/{number}_{safe}.png").write_bytes(images.encode_png(sheet))


def _overlays(run: StageRun, manifest: pd.DataFrame, cohort: pd.DataFrame, root: Path) -> None:
    slides = usable(cohort)
    colours = class_colours(sorted(slides["label"].unique()))
    row: Any
    for row in slides.groupby("label").head(1).head(OVERLAYS).itertuples(index=False):
        rgb, mask = read_slide(root, row)
        kept: Any = manifest[(manifest["slide_id"] == row.slide_id) & (manifest["outcome"] == KEPT)]
        boxes = kept[["x", "y", "width", "height"]].to_numpy(np.int64)
        picture = overlay(rgb, boxes, [str(area) for area in kept["area"]], [colours[row.label]] * len(boxes), mask)
        path = run.attach(f"overlays/{row.slide_id}.png")
        path.write_bytes(images.encode_png(picture))
