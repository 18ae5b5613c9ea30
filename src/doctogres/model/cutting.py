"""From a slide to the patches that a model classifies: the regions of its mask or, without one, tiles of the tissue."""

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from doctogres.errors import DoctogresError
from doctogres.model.answer import CutSlide, MaskSource
from doctogres.model.card import ClassifierCard
from doctogres.model.tiles import tissue_mask, tissue_tiles
from doctogres.patches.crops import cut_patches
from doctogres.patches.regions import find_patches
from doctogres.patches.views import REGIONS, WHOLE, size_of
from doctogres.slides.plausibility import doubt_about, fit_of, mask_fit
from doctogres.slides.reasons import Reason
from doctogres.slides.scale import Scale, unit_of
from doctogres.slides.source import Picture, SlideSource, source_of
from doctogres.slides.tissue import ReducedPicture

MOST_TIMES: Final = 2.0  # that a slide's microns per pixel may be more or less than those of the training
MAX_REGIONS: Final = 2000  # per slide; 2000 patches of 224 px take 300 MB
Mask = npt.NDArray[np.bool_]
Found = tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]  # regions (regions, 5), which are classified (regions,)


class NoLesionError(DoctogresError):
    """The mask is empty, or no mask was given and no tissue was found, so there is nothing to classify."""

    code = Reason.EMPTY_MASK


class TooManyRegionsError(DoctogresError):
    """The mask has so many regions that their patches would exhaust the memory."""

    code = Reason.TOO_MANY_REGIONS


def cut_slide(
    picture: Picture,
    mask: Mask | None,
    card: ClassifierCard,
    *,
    note: str = "",
    warnings: tuple[str, ...] = (),
    reduced: ReducedPicture | None = None,
) -> CutSlide:
    """The patches of a slide in every view of the model.

    Args:
        picture: the slide.
        mask: (height, width), true in the lesions; None takes tiles of the tissue instead.
        card: of the model.
        note: a warning about how the mask was read, if there is one.
        warnings: of the model, for every slide.
        reduced: the slide, if it was reduced already.

    Raises:
        NoLesionError: the mask is empty, or there is no tissue.
        DoctogresError: picture and mask differ in size, or the mask has too many regions.
    """
    slide = source_of(picture)
    if mask is None:
        return _of_tissue(slide, card, warnings)
    settings = card.patch
    scale = Scale.of(slide, mask, settings.target_mpp)
    first = card.views[0]
    regions, kept, reasons = find_patches(mask, settings, first, scale)
    if not kept.any():
        raise NoLesionError("the mask is empty, so there is no lesion to classify; mark at least one region")
    chosen = regions[kept]
    stated = [reason for reason, keep in zip(reasons, kept, strict=True) if keep and reason]
    doubt = ""
    if first != WHOLE:  # the mask is not used there
        fit = mask_fit(mask, reduced.small, reduced.inside) if reduced else fit_of(slide, mask)
        doubt = doubt_about(fit, card.masks, chosen[:, 2:4].max(axis=1) / scale.unit)
    doubt = _other_scale(slide, card) or doubt

    def find(view: str) -> Found:
        return (regions, kept) if view == first else find_patches(mask, settings, view, scale)[:2]

    return _cut(
        slide,
        card,
        find,
        "given",
        (*warnings, *_unknown_scale(slide, card), *filter(None, [doubt, note]), *stated),
        doubt,
    )


def _of_tissue(slide: SlideSource, card: ClassifierCard, warnings: tuple[str, ...]) -> CutSlide:
    unit, tissue, (width, height) = unit_of(slide, card.patch.target_mpp), tissue_mask(slide), slide.size

    def find(view: str, *, thin: bool = True) -> Found:
        if view == WHOLE:
            area = round(tissue.mean() * height * width)
            return np.array([[0, 0, width, height, area]]), np.array([area > 0])
        side = card.region_side if view == REGIONS else size_of(view)
        min_area = round(card.patch.min_area * unit**2)
        return tissue_tiles(tissue, slide.size, side=round(side * unit), min_area=min_area, thin=thin)

    first = card.views[0]
    # Tissue that is thinner than a window is tissue if it would fill a region.
    if not any(find(view, thin=False)[1].any() for view in dict.fromkeys((first, REGIONS))):
        raise NoLesionError(
            "no mask was given and no stained tissue was found in the picture, so there is nothing to classify; "
            "give the mask of the lesions, or check the picture"
        )
    _, chosen = find(first)
    warning = (
        "no mask was given"
        if first == WHOLE
        else f"no mask was given: {chosen.sum()} of the {len(chosen)} tiles that touch tissue were classified, but the "
        "model was trained on marked lesion regions, and its score and threshold apply only to those"
    )
    doubt = _other_scale(slide, card)
    told = (*warnings, *_unknown_scale(slide, card), *filter(None, [doubt]), warning)
    return _cut(slide, card, find, "tissue", told, doubt)


def _other_scale(slide: SlideSource, card: ClassifierCard) -> str:
    """The reason to doubt a slide whose magnification is not that of the training; empty where it may be or is resampled."""
    if not card.mpp or not slide.mpp or card.patch.target_mpp:
        return ""
    if max(slide.mpp / card.mpp, card.mpp / slide.mpp) <= MOST_TIMES:
        return ""
    return Reason.MAGNIFICATION.because(mpp=slide.mpp, trained=card.mpp)


def _unknown_scale(slide: SlideSource, card: ClassifierCard) -> tuple[str, ...]:
    if not card.mpp or slide.mpp:
        return ()
    trained = f"the model was trained at {card.mpp:.3g} microns per pixel, but those of this slide are not known"
    return (f"{trained}; it is taken to be like that" if card.patch.target_mpp else trained,)


def _cut(
    slide: SlideSource,
    card: ClassifierCard,
    find: Callable[[str], Found],
    source: MaskSource,
    warnings: tuple[str, ...],
    doubt: str = "",
) -> CutSlide:
    found = {view: find(view) for view in card.views}
    chosen = {view: patches[kept] for view, (patches, kept) in found.items()}
    if (most := max(map(len, chosen.values()))) > MAX_REGIONS:
        raise TooManyRegionsError(
            f"the mask has {most} regions of at least {card.patch.min_area} px, more than the limit of {MAX_REGIONS}; give a "
            "mask without specks, or a larger min_area"
        )
    pixels = {view: cut_patches(slide, patches, card.patch, view) for view, patches in chosen.items()}
    dropped = int((~next(iter(found.values()))[1]).sum())
    return CutSlide(chosen, pixels, dropped, source, warnings, doubt)
