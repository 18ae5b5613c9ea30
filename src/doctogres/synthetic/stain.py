"""Haematoxylin and eosin: from two pigment layers to transmitted light (Beer-Lambert law)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from doctogres.synthetic.noise import Bytes, Floats, noise_field

# Absorption per unit of pigment in red, green and blue (Ruifrok & Johnston 2001, natural logarithm here).
HAEMATOXYLIN: Final = (0.650, 0.704, 0.286)
EOSIN: Final = (0.092, 0.954, 0.283)
# Optical density of a full (255) pigment layer.
FULL_HAEMATOXYLIN: Final = 1.75
FULL_EOSIN: Final = 1.25


@dataclass
class Pigment:
    """The two dyes on a slide, as drawing surfaces.

    Attributes:
        haematoxylin: uint8, (height, width): binds to nuclei.
        eosin: uint8, (height, width): binds to stroma and cytoplasm.
    """

    haematoxylin: Bytes
    eosin: Bytes


def stained_light(rng: np.random.Generator, pigment: Pigment, cover: Floats, glass: Floats) -> Bytes:
    """The picture of a stained section; hue and strength of the stain vary with `rng`, independent of the content.

    Args:
        rng: Source of randomness.
        pigment: The drawn layers.
        cover: float32, (height, width), 0-1: tissue coverage of each pixel.
        glass: float32, (height, width, 3): the light without tissue.

    Returns:
        RGB, uint8, (height, width, 3).
    """
    shape = cover.shape[0], cover.shape[1]
    chromatin = 1 + 0.16 * noise_field(rng, shape, 1.6)
    thickness = 1 + 0.10 * noise_field(rng, shape, 90)
    blue = _layer(pigment.haematoxylin, FULL_HAEMATOXYLIN * rng.uniform(0.82, 1.18)) * chromatin * cover * thickness
    pink = _layer(pigment.eosin, FULL_EOSIN * rng.uniform(0.72, 1.22)) * cover * thickness
    first, second = _jittered(rng, HAEMATOXYLIN), _jittered(rng, EOSIN)
    light = np.empty_like(glass)
    for channel in range(3):
        light[..., channel] = glass[..., channel] * np.exp(-(blue * first[channel] + pink * second[channel]))
    light = np.asarray(cv2.GaussianBlur(light, (0, 0), 0.55), dtype=np.float32)
    # The same grain in all three channels: camera noise that a low PNG compression level can still compress.
    grain = rng.normal(0, 0.45, shape).astype(np.float32)
    return np.asarray(np.clip(light + grain[..., None] + 0.5, 0, 255), dtype=np.uint8)


def _layer(drawn: Bytes, full: float) -> Floats:
    return np.asarray(np.clip(drawn.astype(np.float32) * (full / 255), 0, None), dtype=np.float32)


def _jittered(rng: np.random.Generator, absorption: tuple[float, float, float]) -> Floats:
    """Batch variation of a dye: the same length, a slightly different direction."""
    vector = np.clip(np.asarray(absorption) + rng.normal(0, 0.045, 3), 0.01, None)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)
