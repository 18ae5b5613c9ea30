"""An answer as outlines: every classified patch with its class and probabilities, as GeoJSON that QuPath opens."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from doctogres.drawing import class_colours
from doctogres.model.answer import SlideAnswer
from doctogres.slides.geojson import Outline, Shape, write_outlines
from doctogres.slides.outlines import box_shape, region_shape, scaled
from doctogres.slides.scale import Scale
from doctogres.slides.source import Picture, source_of

MarkedPicture = tuple[Picture, npt.NDArray[np.bool_] | None]
TOLERANCE: Final = 0.01  # of an area that was rounded to whole pixels of the slide


def outlined_answer(
    slide_id: str, answer: SlideAnswer, slide: MarkedPicture, classes: Sequence[str], *, model: str
) -> str:
    """The GeoJSON of a slide's answer; what is said of the slide as a whole is a foreign member, `doctogres`.

    Args:
        slide_id: the slide.
        answer: its answer.
        slide: its picture and the mask that was cut, (rows, columns); None where the tissue was.
        classes: in the order of the probabilities.
        model: the model's address or version.
    """
    about = {
        "slide_id": slide_id,
        "label": answer.label,
        "abstained": answer.abstained,
        "confidence": answer.confidence,
        "probabilities": dict(zip(classes, answer.probabilities.tolist(), strict=True)),
        "model": model,
    }
    return write_outlines(answer_outlines(answer, slide, classes), about=about)


def answer_outlines(answer: SlideAnswer, slide: MarkedPicture, classes: Sequence[str]) -> list[Outline]:
    """An outline per patch of the first view: of its region, or the box of a window or tile.

    Args:
        answer: of the slide.
        slide: see `outlined_answer`.
        classes: in the order of the probabilities.
    """
    colours, (picture, mask) = class_colours(classes), slide
    factor = Scale.of(source_of(picture), mask).factor if mask is not None else 1.0
    rows = zip(answer.patches.to_dict("records"), answer.patch_probabilities.tolist(), strict=True)
    return [
        Outline(
            _shape(patch, mask, factor),
            name=f"{patch['label']} {max(shares):.2f}",
            classification=str(patch["label"]),
            colour=colours[str(patch["label"])],
            measurements={**dict(zip(classes, shares, strict=True)), "Mask area px": float(patch["area"])},
        )
        for patch, shares in rows
    ]


def _shape(patch: Mapping[Any, Any], mask: npt.NDArray[np.bool_] | None, factor: float) -> Shape:
    """The outline of the region that exactly fills a patch's box, the one of its area if there are several; else the box.

    Args:
        patch: with its box and area in the slide's pixels.
        mask: (rows, columns).
        factor: the slide's pixels per pixel of the mask.
    """
    x, y, width, height = (int(patch[name]) for name in ("x", "y", "width", "height"))
    if mask is not None:
        left, top, right, bottom = (round(side / factor) for side in (x, y, x + width, y + height))
        inside = np.ascontiguousarray(mask[top:bottom, left:right])
        _, labels, found, _ = cv2.connectedComponentsWithStats(inside.view(np.uint8), connectivity=8)
        filling = np.flatnonzero(
            (found[:, :4] == [0, 0, right - left, bottom - top]).all(axis=1) & (np.arange(len(found)) > 0)
        )
        areas = found[filling, 4] * factor**2
        if len(filling) and abs(areas - patch["area"]).min() <= TOLERANCE * patch["area"]:
            region = labels == filling[abs(areas - patch["area"]).argmin()]
            return scaled(region_shape(region, x=left, y=top), factor)
    return box_shape(x, y, width, height)
