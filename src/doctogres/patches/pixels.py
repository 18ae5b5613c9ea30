"""The patches' pixels: cut once into a memory-mapped uint8 .npy file per view, and again if that file is missing."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.cleaning.reading import read_slide
from doctogres.disk import check_space
from doctogres.engine import map_slides
from doctogres.errors import CohortError, DoctogresError, listed
from doctogres.files import digest, file_digest, partial_beside, replacing
from doctogres.patches.crops import cut_patches
from doctogres.patches.manifest import COLUMNS, DROPPED, KEPT, Manifest
from doctogres.patches.regions import find_patches
from doctogres.patches.views import REGIONS, WHOLE
from doctogres.settings import PatchSettings
from doctogres.slides.cohort import slide_root
from doctogres.slides.figures import figures
from doctogres.slides.opening import open_slide
from doctogres.slides.plausibility import MaskFit, MaskRange, mask_fit
from doctogres.slides.scale import Scale
from doctogres.slides.splits import HOLDOUT
from doctogres.slides.table import CohortTable
from doctogres.slides.tissue import ReducedPicture


@dataclass(frozen=True)
class PatchSet:
    """The kept patches of a view and their pixels, row for row."""

    table: pd.DataFrame
    pixels: npt.NDArray[np.uint8]  # (patches, size, size, 3)


Figures = dict[str, float | None]  # of `slides.figures`
# What `find_patches` found on a slide: view -> patches, which of them are kept, reasons.
Found = dict[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], list[str]]]

# A slide's row, its patches, how its mask lies, their longer sides in the model's pixels, figures, pixels by view.
Cut = tuple[Any, Found, MaskFit, npt.NDArray[np.float64], Figures, list[npt.NDArray[np.uint8]]]


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


def cut_cohort(
    cohort: CohortTable,
    root: Path,
    settings: PatchSettings,
    *,
    cache: Path,
    source: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Manifest, list[Path]]:
    """Cuts every usable slide of the cohort, decoding each once.

    Args:
        cohort: the cohort table.
        root: folder that its image and mask paths are relative to.
        settings: how to cut.
        cache: folder for the pixel cache.
        source: URI of the cohort table.
        progress: called with (slides done, slides in total).

    Returns:
        The manifest and the pixel cache's files, one per view (kept regions only, in the manifest's order).
    """
    slides = cohort.usable
    _check_scales(slides, settings)
    rows: list[dict[str, Any]] = []
    masks: list[tuple[MaskFit, npt.NDArray[np.float64], str]] = []
    measured: dict[str, Figures] = {}
    check_space(cache, len(settings.views) * _pixel_bytes(len(slides), settings.patch_size))  # every slide has a patch
    with ExitStack() as stack:  # the final names depend on what was cut
        partials = [stack.enter_context(partial_beside(cache / f"patches-{view}.npy")) for view in settings.views]
        files = [stack.enter_context(_PixelFile(path, settings.patch_size)) for path in partials]
        for done, (row, found, fit, sides, of_slide, pixels) in enumerate(_cut_slides(slides, root, settings), 1):
            for view in found:
                rows.extend(_slide_rows(row, view, found))
            measured[row.slide_id] = of_slide
            if row.fold != HOLDOUT:
                masks.append((fit, sides, row.reason))
            for file, of_view in zip(files, pixels, strict=True):
                file.write(of_view)
            if progress:
                progress(done, len(slides))
        for file in files:
            file.finish()
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        if not (table["outcome"] == KEPT).any():
            raise CohortError("patch: no slide has any region left; check the masks or lower min_area")
        manifest = Manifest(
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
        paths = [cache_file(manifest, cache, view) for view in settings.views]
        return manifest, [partial.replace(path) for partial, path in zip(partials, paths, strict=True)]


def _check_scales(slides: pd.DataFrame, settings: PatchSettings) -> None:
    if settings.target_mpp and (unknown := slides.loc[slides["mpp"].isna(), "slide_id"].tolist()):
        raise CohortError(
            f"patch: target_mpp={settings.target_mpp:g}, but the microns per pixel of {len(unknown)} slides are not known "
            f"({listed(unknown)}); enter them in the column mpp of the table of labels, or give `clean` the parameter mpp"
        )


def _longer_sides(found: Found) -> npt.NDArray[np.int64]:
    """The longer side of each patch of the first view, for the range of the masks."""
    regions, kept, _ = next(iter(found.values()))
    return np.asarray(regions[kept, 2:4].max(axis=1))


def _cut_slides(slides: pd.DataFrame, root: Path, settings: PatchSettings) -> Iterator[Cut]:
    def cut(row: Any) -> Cut:
        picture, mask, _ = read_slide(root, row)
        scale = Scale.of(picture, mask, settings.target_mpp)
        found = {view: find_patches(mask, settings, view, scale) for view in settings.views}
        pixels = [cut_patches(picture, patches[kept], settings, view) for view, (patches, kept, _) in found.items()]
        reduced = ReducedPicture.of(picture)
        fit = mask_fit(mask, reduced.small, reduced.inside)
        return row, found, fit, _longer_sides(found) / scale.unit, figures(picture, mask, reduced), pixels

    return map_slides(cut, slides.itertuples(index=False))


def cache_file(manifest: Manifest, cache: Path, view: str) -> Path:
    """The file of a view's pixels in the cache folder."""
    return cache / f"patches-{manifest.pixels}-{view}.npy"


def pixel_key(rows: pd.DataFrame, settings: PatchSettings, slides: pd.DataFrame) -> str:
    """The cache key of the pixels: a digest of the boxes, the settings and the picture contents."""
    kept = rows[rows.outcome == KEPT]
    boxes = kept[["slide_id", "view", "x", "y", "width", "height"]]
    contents = slides.loc[slides.slide_id.isin(kept.slide_id), ["slide_id", "image_md5", "mask_md5"]]
    return digest(settings.model_dump_json() + boxes.to_csv(index=False) + contents.to_csv(index=False))


def _pixel_bytes(patches: int, size: int) -> int:
    return patches * size * size * 3


class _PixelFile:
    """An .npy file of (patches, size, size, 3) that grows slide by slide."""

    def __init__(self, path: Path, size: int):
        self.path, self.size, self.count = path, size, 0

    def __enter__(self) -> Self:
        self.file = self.path.open("wb")
        self._header()
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def write(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Adds patches, (patches, size, size, 3)."""
        self.file.write(pixels.data)
        self.count += len(pixels)

    def finish(self) -> None:
        """Writes the number of patches into the header and closes the file."""
        self.file.seek(0)
        self._header()  # as long as the first: numpy leaves room for the count to grow
        self.file.close()

    def _header(self) -> None:
        shape = (self.count, self.size, self.size, 3)
        np.lib.format.write_array_header_2_0(self.file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def load_patches(manifest: Manifest, *, cache: Path, view: str = "", data: str = "") -> PatchSet:
    """The kept patches of a view with their pixels, from the cache or, if it is missing, cut again from the slides.

    Args:
        manifest: the patch manifest.
        cache: folder of the pixel cache.
        view: the manifest's first view by default.
        data: folder or zip of the slides, if they have moved.

    Raises:
        DoctogresError: the pixels are not cached and the slides are missing or changed, or the cache is damaged.
    """
    shown = view or manifest.patch.views[0]
    table, path = manifest.kept_of(shown), cache_file(manifest, cache, shown)
    if not path.is_file():
        path = _rebuild(manifest, table, path, slide_root(manifest.root, data), shown)
    try:
        pixels = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise DoctogresError(f"{path}: damaged ({error}); delete the file and run again") from error
    if len(pixels) != len(table):
        raise DoctogresError(
            f"{path}: contains {len(pixels)} patches, but the manifest has {len(table)}; delete the file and run again"
        )
    return PatchSet(table, pixels)


def _rebuild(manifest: Manifest, table: pd.DataFrame, path: Path, root: Path, view: str) -> Path:
    groups = list(table.groupby("slide_id", sort=False))

    def cut(item: tuple[Any, pd.DataFrame]) -> npt.NDArray[np.uint8]:
        slide_id, rows = item
        picture = root / manifest.images[str(slide_id)]
        if not picture.is_file():
            raise CohortError(
                f"{slide_id}: {picture} does not exist, and the pixels are not cached on this machine; give data=FOLDER"
            )
        if file_digest(picture, algorithm="md5", length=None) != manifest.image_md5[str(slide_id)]:
            raise CohortError(
                f"{slide_id}: {picture} has changed since it was cut; run `patch` again, or give data=FOLDER"
            )
        boxes = rows[["x", "y", "width", "height", "area"]].to_numpy(np.int64)
        return cut_patches(open_slide(picture).at(manifest.mpp.get(str(slide_id))), boxes, manifest.patch, view)

    with (
        replacing(path, needed=_pixel_bytes(len(table), manifest.patch.patch_size)) as partial,
        _PixelFile(partial, manifest.patch.patch_size) as file,
    ):
        for pixels in map_slides(cut, groups):
            file.write(pixels)
        file.finish()
    return path
