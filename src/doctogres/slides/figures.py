"""Figures of a slide: what drifts when a scanner, a stain or whoever marks the lesions changes.

Training and serving measure them with this function only, so that `monitor` can compare the two.
"""

import cv2
import numpy as np
import numpy.typing as npt

from doctogres.slides.source import Picture, source_of
from doctogres.slides.tissue import ReducedPicture, judge_colour


def figures(picture: Picture, mask: npt.NDArray[np.bool_] | None, reduced: ReducedPicture) -> dict[str, float | None]:
    """Size, share of the mask, and colours as `tissue.judge_colour` measures them.

    Args:
        picture: the slide.
        mask: (height, width), true on lesions.
        reduced: of the same picture.
    """
    width, height = source_of(picture).size
    colour = judge_colour(reduced.small, reduced.inside, reduced.glass)
    return {
        "width": width,
        "height": height,
        "mask_share": None if mask is None else cv2.countNonZero(mask.view(np.uint8)) / mask.size,
        "inside_share": colour.inside_share,
        "stain_share": colour.stain_share,
        "hue": colour.hue,
        "saturation": colour.saturation,
        "glass": float(reduced.glass.mean()),
    }
