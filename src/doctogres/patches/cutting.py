"""Cutting the slides of a cohort: what is found on each, and the pixels as parts of the cache.

`cut_slides` needs only rows of the cohort table and can run in any process; `manifest_of` puts together what it yields.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.cleaning.reading import read_slide
from doctogres.disk import check_space
from doctogres.engine import map_slides
from doctogres.errors import CohortError, DoctogresError, listed
from doctogres.files import digest, file_digest
from doctogres.patches.crops import cut_patches
from doctogres.patches.manifest import COLUMNS, DROPPED, KEPT, Manifest
from doctogres.patches.parts import FOLDER, PartWriter, content_key, pixel_bytes
from doctogres.patches.pixels import record_shares, view_parts
from doctogres.patches.regions import find_patches
from doctogres.patches.views import REGIONS, WHOLE
from doctogres.records.slide import Slide, slides_of
from doctogres.settings import PatchSettings
from doctogres.slides.figures import figures
from doctogres.slides.plausibility import MaskFit, MaskRange, mask_fit
from doctogres.slides.reasons import Reason, written
from doctogres.slides.scale import Scale
from doctogres.slides.splits import HOLDOUT
from doctogres.slides.table import CohortTable
from doctogres.slides.tissue import ReducedPicture

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Found:
    """What `find_patches` found on a slide in a view: (patches, 5) boxes, (patches,) which of them are kept, a reason each."""

    patches: npt.NDArray[np.int64]
    kept: npt.NDArray[np.bool_]
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class CutSlide:
    """What was found on a slide; its pixels are in the parts.

    Attributes:
        slide_id: of the cohort table.
        found: view -> its patches.
        fit: how the mask lies on the picture.
        sides: (patches,) longer sides of the first view's kept patches, in the model's pixels.
        figures: of the picture and its mask, see `slides.figures`.
    """

    slide_id: str
    found: dict[str, Found]
    fit: MaskFit
    sides: npt.NDArray[np.float64]
    figures: dict[str, float | None]


@dataclass(frozen=True)
class Cutting:
    """Cuts slides; `Work` of `records.slide`. What it is called with are `slides_to_cut`, and their parts are those of one call.

    Attributes:
        root: the folder of the slides.
        settings: how to cut.
        cache: the workspace.
    """

    root: Path
    settings: PatchSettings
    cache: Path
    record: ClassVar = CutSlide
    model: ClassVar = None

    def __call__(self, slides: Iterable[Slide], *, workers: int | None = None) -> Iterator[CutSlide | DoctogresError]:
        """See `cut_slides`."""
        return cut_slides(list(slides), self.root, self.settings, cache=self.cache, workers=workers)


def slides_to_cut(cohort: CohortTable) -> list[Slide]:
    """The usable slides of a cohort table, with the hashes of their pictures that name the parts."""
    rows = cohort.usable
    hashes = dict(zip(rows["image"], rows["image_md5"], strict=True))
    return [slide.with_hashes(hashes) for slide in slides_of(rows)]


def cut_slides(
    slides: Sequence[Slide], root: Path, settings: PatchSettings, *, cache: Path, workers: int | None = None
) -> Iterator[CutSlide | DoctogresError]:
    """Cuts slides, decoding each once, and yields what was found on each, in order, or why it cannot be cut.

    Their parts are complete when the last slide has been taken. Cutting the same slides in the same order again, here or in
    another process at the same time, writes the same files.

    Args:
        slides: see `slides_to_cut`.
        root: folder that their image and mask paths are relative to.
        settings: how to cut.
        cache: the workspace.
        workers: number of threads, one per core by default.
    """
    _check_scales(slides, settings)
    size = settings.patch_size
    check_space(cache, len(settings.views) * pixel_bytes(len(slides), size))  # every slide has a patch
    with ExitStack() as stack:
        writers = {view: stack.enter_context(PartWriter(cache / FOLDER, view, size)) for view in settings.views}
        for slide, cut, pixels in map_slides(lambda slide: _cut_slide(slide, root, settings), slides, workers=workers):
            for view, found in cut.found.items() if isinstance(cut, CutSlide) else ():
                boxes, image_md5 = found.patches[found.kept], slide.hashes[str(slide.image)]
                writers[view].write(content_key(view, boxes, settings, image_md5, slide.mpp or None), pixels[view])
            yield cut
        for writer in writers.values():
            writer.finish()


def _cut_slide(
    slide: Slide, root: Path, settings: PatchSettings
) -> tuple[Slide, CutSlide | DoctogresError, dict[str, Pixels]]:
    try:
        return slide, *_cut(slide, root, settings)
    except DoctogresError as error:
        return slide, _as_cleaned(error, root / str(slide.image), slide.hashes[str(slide.image)]), {}


def _as_cleaned(error: DoctogresError, picture: Path, md5: str) -> DoctogresError:
    """The error of a file that `clean` could use; another one if the file has changed since, which is no finding about it."""
    if error.code != Reason.UNREADABLE_IMAGE:
        return error
    if picture.is_file() and file_digest(picture, algorithm="md5", length=None) == md5:
        return error
    return CohortError(f"{error}; the file is not the one that was cleaned: run `clean` again, or give data=FOLDER")


def is_unreadable(cut: CutSlide | DoctogresError) -> bool:
    """Whether pixels of a slide cannot be read that `clean` did not need: it reads only an overview of a pyramid."""
    return isinstance(cut, DoctogresError) and cut.code == Reason.UNREADABLE_IMAGE


def _cut(slide: Slide, root: Path, settings: PatchSettings) -> tuple[CutSlide, dict[str, Pixels]]:
    picture, mask, _ = read_slide(root, slide)
    scale = Scale.of(picture, mask, settings.target_mpp)
    found, pixels = dict[str, Found](), dict[str, Pixels]()
    for view in settings.views:
        patches, kept, reasons = find_patches(mask, settings, view, scale)
        found[view] = Found(patches, kept, tuple(reasons))
        pixels[view] = cut_patches(picture, patches[kept], settings, view)
    reduced = ReducedPicture.of(picture)
    fit, first = mask_fit(mask, reduced.small, reduced.inside), found[settings.views[0]]
    sides = first.patches[first.kept, 2:4].max(axis=1) / scale.unit
    measured = {
        name: None if value is None else float(value) for name, value in figures(picture, mask, reduced).items()
    }
    return CutSlide(slide.slide_id, found, fit, sides, measured), pixels


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
    slides = slides_to_cut(cohort)

    def cuts() -> Iterator[CutSlide | DoctogresError]:
        for number, cut in enumerate(cut_slides(slides, root, settings, cache=cache), 1):
            yield cut
            if progress:
                progress(number, len(slides))

    manifest = manifest_of(cohort, cuts(), root, settings, source=source)
    record_shares(manifest, [[slide.slide_id for slide in slides]], cache)
    return manifest, [part.path for view in settings.views for part in view_parts(manifest, view, cache)]


def manifest_of(
    cohort: CohortTable,
    cuts: Iterable[CutSlide | DoctogresError],
    root: Path,
    settings: PatchSettings,
    *,
    source: str = "",
) -> Manifest:
    """The manifest of a cohort whose usable slides have been cut; a slide whose pixels cannot be read is a dropped row.

    Args:
        cohort: the cohort table.
        cuts: of every usable slide, in the table's order, or why it cannot be cut.
        root: folder that its image and mask paths are relative to.
        settings: how they were cut.
        source: URI of the cohort table.

    Raises:
        CohortError: no patch was kept.
        DoctogresError: a slide cannot be cut for another reason than its pixels.
    """
    slides = cohort.usable
    rows: list[tuple[Any, ...]] = []
    masks: list[tuple[MaskFit, npt.NDArray[np.float64], str]] = []
    measured: dict[str, dict[str, float | None]] = {}
    row: Any
    for row, cut in zip(slides.itertuples(index=False), cuts, strict=True):
        if isinstance(cut, DoctogresError):
            if not is_unreadable(cut):
                raise cut
            rows.append(_unreadable_row(row, settings.views[0], written(cut.code, cut)))
            continue
        for view in settings.views:
            rows.extend(_slide_rows(row, view, cut.found[view]))
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


def _slide_rows(row: Any, view: str, found: Found) -> Iterator[tuple[Any, ...]]:
    stem = f"{row.slide_id}-{view}" if view not in (REGIONS, WHOLE) else row.slide_id
    for index, (x, y, width, height, area) in enumerate(found.patches.tolist()):
        outcome, reason = KEPT if found.kept[index] else DROPPED, found.reasons[index]
        box = x, y, width, height, area, area / (width * height)
        yield f"{stem}-{index:03d}", row.slide_id, *box, row.label, row.group, row.fold, outcome, reason, view


def _unreadable_row(row: Any, view: str, reason: str) -> tuple[Any, ...]:
    box = 0, 0, 0, 0, 0, 0.0
    return row.slide_id, row.slide_id, *box, row.label, row.group, row.fold, DROPPED, reason, view


def _check_scales(slides: Sequence[Slide], settings: PatchSettings) -> None:
    if settings.target_mpp and (unknown := [slide.slide_id for slide in slides if slide.mpp is None]):
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
