"""Figures of a slide: what drifts when a scanner, a stain or whoever marks the lesions changes.

Training and serving measure them with this function only, so that `monitor` can compare the two.
"""

import cv2
import numpy as np
import numpy.typing as npt

from doctogres.slides.tissue import ReducedPicture, judge_colour


def figures(
    rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_] | None, reduced: ReducedPicture
) -> dict[str, float | None]:
    """Size, share of the mask, and colours as `tissue.judge_colour` measures them.

    Args:
        rgb: (height, width, 3).
        mask: (height, width), true on lesions.
        reduced: of the same picture.
    """
    colour = judge_colour(reduced.small, reduced.inside, reduced.glass)
    return {
        "width": rgb.shape[1],
        "height": rgb.shape[0],
        "mask_share": None if mask is None else cv2.countNonZero(mask.view(np.uint8)) / mask.size,
        "inside_share": colour.inside_share,
        "stain_share": colour.stain_share,
        "hue": colour.hue,
        "saturation": colour.saturation,
        "glass": float(reduced.glass.mean()),
    }
