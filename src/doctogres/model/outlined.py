"""An answer as outlines: every classified patch with its class and probabilities, as GeoJSON that QuPath opens."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from doctogres.drawing import class_colours
from doctogres.model.answer import SlideAnswer
from doctogres.slides.geojson import Outline, Shape, write_outlines
from doctogres.slides.outlines import box_shape, region_shape


def outlined_answer(
    slide_id: str, answer: SlideAnswer, mask: npt.NDArray[np.bool_] | None, classes: Sequence[str], *, model: str
) -> str:
    """The GeoJSON of a slide's answer; what is said of the slide as a whole is a foreign member, `doctogres`.

    Args:
        slide_id: the slide.
        answer: its answer.
        mask: (height, width), the lesions that were cut; None where the tissue was.
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
    return write_outlines(answer_outlines(answer, mask, classes), about=about)


def answer_outlines(answer: SlideAnswer, mask: npt.NDArray[np.bool_] | None, classes: Sequence[str]) -> list[Outline]:
    """An outline per patch of the first view: of its region, or the box of a window or tile.

    Args:
        answer: of the slide.
        mask: (height, width); see `outlined_answer`.
        classes: in the order of the probabilities.
    """
    colours = class_colours(classes)
    rows = zip(answer.patches.to_dict("records"), answer.patch_probabilities.tolist(), strict=True)
    return [
        Outline(
            _shape(patch, mask),
            name=f"{patch['label']} {max(shares):.2f}",
            classification=str(patch["label"]),
            colour=colours[str(patch["label"])],
            measurements={**dict(zip(classes, shares, strict=True)), "Mask area px": float(patch["area"])},
        )
        for patch, shares in rows
    ]


def _shape(patch: Mapping[Any, Any], mask: npt.NDArray[np.bool_] | None) -> Shape:
    """The outline of the region that exactly fills a patch's box and has its area; else the box."""
    x, y, width, height = (int(patch[name]) for name in ("x", "y", "width", "height"))
    if mask is not None:
        inside = np.ascontiguousarray(mask[y : y + height, x : x + width])
        _, labels, found, _ = cv2.connectedComponentsWithStats(inside.view(np.uint8), connectivity=8)
        fitting = (found[1:] == [0, 0, width, height, int(patch["area"])]).all(axis=1)
        if fitting.any():
            return region_shape(labels == 1 + int(fitting.argmax()), x=x, y=y)
    return box_shape(x, y, width, height)
