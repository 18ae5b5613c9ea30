"""Slides drawn for the untrained classifier."""

from typing import Any

import numpy as np

from doctogres.slides.images import encode_png

GLASS, TISSUE, LESION = (190, 190, 188), (205, 140, 180), (120, 70, 150)


def drawn(
    seed: int, *, lesions: int = 3, size: tuple[int, int] = (200, 300), speck: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """A strip of tissue with square lesions on glass: picture (height, width, 3) and mask."""
    random = np.random.default_rng(seed)
    rgb = np.full((*size, 3), GLASS, np.uint8)
    rgb[50:150, 20:280] = TISSUE
    mask = np.zeros(size, np.bool_)
    for number in range(lesions):
        y, x, side = random.integers(60, 110), 30 + 60 * number, random.integers(12, 30)
        mask[y : y + side, x : x + side] = True
    mask[2:4, 2:4] = speck
    rgb[mask] = LESION
    return (rgb + random.integers(0, 6, rgb.shape)).astype(np.uint8), mask


def files(seed: int, **drawing: Any) -> dict[str, bytes]:
    """The drawn slide as a request's columns."""
    rgb, mask = drawn(seed, **drawing)
    return {"image": encode_png(rgb), "mask": encode_png(mask)}
