"""Cutting the slides of a cohort: what is found on each, and the pixels as parts of the cache.

`cut_slides` needs only rows of the cohort table and can run in any process; `manifest_of` puts together what it yields.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.cleaning.reading import read_slide
from doctogres.disk import check_space
from doctogres.engine import map_slides
from doctogres.errors import CohortError, listed
from doctogres.files import digest
from doctogres.patches.crops import cut_patches
from doctogres.patches.manifest import COLUMNS, DROPPED, KEPT, Manifest
from doctogres.patches.parts import FOLDER, PartWriter, content_key, pixel_bytes
from doctogres.patches.pixels import record_shares, view_parts
from doctogres.patches.regions import find_patches
from doctogres.patches.views import REGIONS, WHOLE
from doctogres.settings import PatchSettings
from doctogres.slides.figures import figures
from doctogres.slides.plausibility import MaskFit, MaskRange, mask_fit
from doctogres.slides.scale import Scale
from doctogres.slides.splits import HOLDOUT
from doctogres.slides.table import CohortTable
from doctogres.slides.tissue import ReducedPicture

# What `find_patches` found on a slide: view -> patches, which of them are kept, reasons.
Found = dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], list[str]]]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class CutSlide:
    """What was found on a slide; its pixels are in the parts.

    Attributes:
        slide_id: of the cohort table.
        found: of every view, all patches as in `find_patches`.
        fit: how the mask lies on the picture.
        sides: (patches,) longer sides of the first view's kept patches, in the model's pixels.
        figures: of the picture and its mask, see `slides.figures`.
    """

    slide_id: str
    found: Found
    fit: MaskFit
    sides: npt.NDArray[np.float64]
    figures: dict[str, float | None]


def cut_slides(slides: pd.DataFrame, root: Path, settings: PatchSettings, *, cache: Path) -> Iterator[CutSlide]:
    """Cuts slides, decoding each once, and yields what was found on each, in order.

    Their parts are complete when the last slide has been taken. Cutting the same slides in the same order again, here or in
    another process at the same time, writes the same files.

    Args:
        slides: rows of the cohort table.
        root: folder that their image and mask paths are relative to.
        settings: how to cut.
        cache: the workspace.
    """
    _check_scales(slides, settings)
    size = settings.patch_size
    check_space(cache, len(settings.views) * pixel_bytes(len(slides), size))  # every slide has a patch
    with ExitStack() as stack:
        writers = {view: stack.enter_context(PartWriter(cache / FOLDER, view, size)) for view in settings.views}
        for row, cut, pixels in map_slides(lambda row: _cut_slide(row, root, settings), slides.itertuples(index=False)):
            for view, (patches, kept, _) in cut.found.items():
                key = content_key(view, patches[kept], settings, row.image_md5, _known_mpp(row.mpp))
                writers[view].write(key, pixels[view])
            yield cut
        for writer in writers.values():
            writer.finish()


def _known_mpp(mpp: float) -> float | None:
    return float(mpp) if mpp > 0 else None


def _cut_slide(row: Any, root: Path, settings: PatchSettings) -> tuple[Any, CutSlide, dict[str, Pixels]]:
    picture, mask, _ = read_slide(root, row)
    scale = Scale.of(picture, mask, settings.target_mpp)
    found = {view: find_patches(mask, settings, view, scale) for view in settings.views}
    pixels = {view: cut_patches(picture, patches[kept], settings, view) for view, (patches, kept, _) in found.items()}
    reduced = ReducedPicture.of(picture)
    fit = mask_fit(mask, reduced.small, reduced.inside)
    patches, kept, _ = found[settings.views[0]]
    sides = patches[kept, 2:4].max(axis=1) / scale.unit
    return row, CutSlide(row.slide_id, found, fit, sides, figures(picture, mask, reduced)), pixels


def cut_cohort(
    cohort: CohortTable,
    root: Path,
    settings: PatchSettings,
    *,
    cache: Path,
    source: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Manifest, list[Path]]:
    """Cuts every usable slide of the cohort.

    Args:
        cohort: the cohort table.
        root: folder that its image and mask paths are relative to.
        settings: how to cut.
        cache: the workspace.
        source: URI of the cohort table.
        progress: called with (slides done, slides in total).

    Returns:
        The manifest and the parts of the pixel cache, view by view (kept regions only, in the manifest's order).
    """
    slides, cuts = cohort.usable, list[CutSlide]()
    for cut in cut_slides(slides, root, settings, cache=cache):
        cuts.append(cut)
        if progress:
            progress(len(cuts), len(slides))
    manifest = manifest_of(cohort, cuts, root, settings, source=source)
    record_shares(manifest, [slides["slide_id"].tolist()], cache)
    return manifest, [part.path for view in settings.views for part in view_parts(manifest, view, cache)]


def manifest_of(
    cohort: CohortTable, cuts: Iterable[CutSlide], root: Path, settings: PatchSettings, *, source: str = ""
) -> Manifest:
    """The manifest of a cohort whose usable slides have been cut.

    Args:
        cohort: the cohort table.
        cuts: of every usable slide, in the table's order.
        root: folder that its image and mask paths are relative to.
        settings: how they were cut.
        source: URI of the cohort table.

    Raises:
        CohortError: no patch was kept.
    """
    slides = cohort.usable
    rows: list[dict[str, Any]] = []
    masks: list[tuple[MaskFit, npt.NDArray[np.float64], str]] = []
    measured: dict[str, dict[str, float | None]] = {}
    row: Any
    for row, cut in zip(slides.itertuples(index=False), cuts, strict=True):
        for view in settings.views:
            rows.extend(_slide_rows(row, view, cut.found))
        measured[cut.slide_id] = cut.figures
        if row.fold != HOLDOUT:
            masks.append((cut.fit, cut.sides, row.reason))
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    if not (table["outcome"] == KEPT).any():
        raise CohortError("patch: no slide has any region left; check the masks or lower min_area")
    return Manifest(
        table,
        root=root,
        data_digest=cohort.data_digest,
        cohort=source,
        images=dict(zip(slides.slide_id, slides.image, strict=True)),
        image_md5=dict(zip(slides.slide_id, slides.image_md5, strict=True)),
        patch=settings,
        pixels=pixel_key(table, settings, slides),
        masks=MaskRange.of(masks),
        fold_names=cohort.fold_names,
        figures=measured,
        mpp={slide: mpp for slide, mpp in zip(slides.slide_id, slides.mpp, strict=True) if mpp > 0},
    )


def _slide_rows(row: Any, view: str, found: Found) -> list[dict[str, Any]]:
    rows, (regions, kept, reasons) = [], found[view]
    stem = f"{row.slide_id}-{view}" if view not in (REGIONS, WHOLE) else row.slide_id
    for index, (x, y, width, height, area) in enumerate(regions.tolist()):
        rows.append({
            "patch_id": f"{stem}-{index:03d}", "slide_id": row.slide_id,
            "x": x, "y": y, "width": width, "height": height, "area": area,
            "mask_fraction": area / (width * height),
            "label": row.label, "group": row.group, "fold": row.fold,
            "outcome": KEPT if kept[index] else DROPPED, "reason": reasons[index], "view": view,
        })  # fmt: skip
    return rows


def _check_scales(slides: pd.DataFrame, settings: PatchSettings) -> None:
    if settings.target_mpp and (unknown := slides.loc[slides["mpp"].isna(), "slide_id"].tolist()):
        raise CohortError(
            f"patch: target_mpp={settings.target_mpp:g}, but the microns per pixel of {len(unknown)} slides are not known "
            f"({listed(unknown)}); enter them in the column mpp of the table of labels, or give `clean` the parameter mpp"
        )


def pixel_key(rows: pd.DataFrame, settings: PatchSettings, slides: pd.DataFrame) -> str:
    """The key of all pixels: a digest of the boxes, the settings and the picture contents."""
    kept = rows[rows.outcome == KEPT]
    boxes = kept[["slide_id", "view", "x", "y", "width", "height"]]
    contents = slides.loc[slides.slide_id.isin(kept.slide_id), ["slide_id", "image_md5", "mask_md5"]]
    return digest(settings.model_dump_json() + boxes.to_csv(index=False) + contents.to_csv(index=False))
