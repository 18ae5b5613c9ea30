"""The patches' pixels: cut once into one memory-mapped uint8 .npy file, and again if that file is missing."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.cleaning.reading import read_slide
from doctogres.engine import map_slides
from doctogres.errors import CohortError, DoctogresError
from doctogres.files import digest, partial_beside, replacing
from doctogres.patches.manifest import COLUMNS, DROPPED, KEPT, Manifest
from doctogres.patches.regions import cut_patches, find_patches
from doctogres.settings import PatchSettings
from doctogres.slides.cohort import slide_root
from doctogres.slides.images import read_rgb
from doctogres.slides.plausibility import MaskFit, MaskRange, fit_of
from doctogres.slides.splits import HOLDOUT
from doctogres.slides.table import CohortTable


@dataclass(frozen=True)
class PatchSet:
    """Kept patches and their pixels, row for row."""

    table: pd.DataFrame
    pixels: npt.NDArray[np.uint8]  # (patches, size, size, 3)


def _slide_rows(
    row: Any, regions: npt.NDArray[np.int64], kept: npt.NDArray[np.bool_], reasons: list[str]
) -> list[dict[str, Any]]:
    rows = []
    for index, (x, y, width, height, area) in enumerate(regions.tolist()):
        rows.append({
            "patch_id": f"{row.slide_id}-{index:03d}", "slide_id": row.slide_id,
            "x": x, "y": y, "width": width, "height": height, "area": area,
            "mask_fraction": area / (width * height),
            "label": row.label, "group": row.group, "fold": row.fold,
            "outcome": KEPT if kept[index] else DROPPED, "reason": reasons[index],
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
) -> tuple[Manifest, Path]:
    """Cuts every usable slide of the cohort, decoding each once.

    Args:
        cohort: the cohort table.
        root: folder that its image and mask paths are relative to.
        settings: how to cut.
        cache: folder for the pixel cache.
        source: URI of the cohort table.
        progress: called with (slides done, slides in total).

    Returns:
        The manifest and the pixel cache's file (kept regions only, in the manifest's order).
    """
    slides = cohort.usable
    rows: list[dict[str, Any]] = []
    masks: list[tuple[MaskFit, npt.NDArray[np.int64], str]] = []

    def gathered() -> Iterator[npt.NDArray[np.uint8]]:
        for done, (row, found, fit, pixels) in enumerate(_cut_slides(slides, root, settings), 1):
            regions, kept, reasons = found
            rows.extend(_slide_rows(row, regions, kept, reasons))
            if row.fold != HOLDOUT:
                masks.append((fit, regions[kept, 2:4].max(axis=1), row.reason))
            yield pixels
            if progress:
                progress(done, len(slides))

    with partial_beside(cache / "patches.npy") as partial:  # the final name depends on what was cut
        _write_pixels(gathered(), partial, size=settings.patch_size)
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
        )
        return manifest, partial.replace(cache_file(manifest, cache))


def _cut_slides(
    slides: pd.DataFrame, root: Path, settings: PatchSettings
) -> Iterator[tuple[Any, tuple[Any, Any, list[str]], MaskFit, npt.NDArray[np.uint8]]]:
    def cut(row: Any) -> tuple[Any, tuple[Any, Any, list[str]], MaskFit, npt.NDArray[np.uint8]]:
        rgb, mask, _ = read_slide(root, row)
        regions, kept, reasons = find_patches(mask, settings)
        return row, (regions, kept, reasons), fit_of(rgb, mask), cut_patches(rgb, regions[kept], settings)

    return map_slides(cut, slides.itertuples(index=False))


def cache_file(manifest: Manifest, cache: Path) -> Path:
    """The file of a manifest's pixels in the cache folder."""
    return cache / f"patches-{manifest.pixels}.npy"


def pixel_key(rows: pd.DataFrame, settings: PatchSettings, slides: pd.DataFrame) -> str:
    """The cache key of the pixels: a digest of the boxes, the settings and the picture contents."""
    kept = rows[rows.outcome == KEPT]
    boxes = kept[["slide_id", "x", "y", "width", "height"]]
    contents = slides.loc[slides.slide_id.isin(kept.slide_id), ["slide_id", "image_md5", "mask_md5"]]
    return digest(settings.model_dump_json() + boxes.to_csv(index=False) + contents.to_csv(index=False))


def _write_pixels(slides: Iterable[npt.NDArray[np.uint8]], path: Path, *, size: int) -> None:
    """Writes the patches of successive slides, (patches, size, size, 3) each, as one array into an .npy file."""
    with path.open("wb") as file:
        _write_header(file, (0, size, size, 3))
        count = 0
        for pixels in slides:
            file.write(pixels.data)
            count += len(pixels)
        file.seek(0)
        _write_header(file, (count, size, size, 3))  # as long as the first: numpy leaves room for the count to grow


def _write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_2_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def load_patches(manifest: Manifest, *, cache: Path, data: str = "") -> PatchSet:
    """The kept patches with their pixels, from the cache or, if it is missing, cut again from the slides.

    Args:
        manifest: the patch manifest.
        cache: folder of the pixel cache.
        data: folder or zip of the slides, if they have moved.

    Raises:
        DoctogresError: the pixels are not cached and the slides are missing or changed, or the cache is damaged.
    """
    table, path = manifest.kept, cache_file(manifest, cache)
    if not path.is_file():
        path = _rebuild(manifest, table, path, slide_root(manifest.root, data))
    try:
        pixels = np.load(path, mmap_mode="r")
    except (ValueError, EOFError) as error:
        raise DoctogresError(f"{path}: damaged ({error}); delete the file and run again") from error
    if len(pixels) != len(table):
        raise DoctogresError(
            f"{path}: contains {len(pixels)} patches, but the manifest has {len(table)}; delete the file and run again"
        )
    return PatchSet(table, pixels)


def _rebuild(manifest: Manifest, table: pd.DataFrame, path: Path, root: Path) -> Path:
    groups = list(table.groupby("slide_id", sort=False))

    def cut(item: tuple[Any, pd.DataFrame]) -> npt.NDArray[np.uint8]:
        slide_id, rows = item
        picture = root / manifest.images[str(slide_id)]
        if not picture.is_file():
            raise CohortError(
                f"{slide_id}: {picture} does not exist, and the pixels are not cached on this machine; give data=FOLDER"
            )
        content = picture.read_bytes()
        if digest(content, algorithm="md5", length=None) != manifest.image_md5[str(slide_id)]:
            raise CohortError(
                f"{slide_id}: {picture} has changed since it was cut; run `patch` again, or give data=FOLDER"
            )
        boxes = rows[["x", "y", "width", "height", "area"]].to_numpy(np.int64)
        return cut_patches(read_rgb(content, name=str(picture)), boxes, manifest.patch)

    with replacing(path) as partial:
        _write_pixels(map_slides(cut, groups), partial, size=manifest.patch.patch_size)
    return path
