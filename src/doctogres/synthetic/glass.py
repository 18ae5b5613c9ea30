"""The glass of a slide and its artefacts: dark edges, pen strokes, air bubbles."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from doctogres.synthetic.noise import Bytes, Floats, noise_field, wave

GLASS_RGB: Final = (190.0, 190.0, 188.0)
DARK_EDGE_CHANCE: Final = 0.20
PEN_CHANCE: Final = 0.22
BUBBLE_CHANCE: Final = 0.18
# Green ink is as green as slime but must not be mistaken for it: it is thin, flat and never in the mask.
INKS: Final = ((38, 58, 150), (36, 36, 42), (52, 122, 82))
INK_ODDS: Final = (0.45, 0.30, 0.25)


def bare_glass(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    """Light transmitted by empty glass: float32, (height, width, 3), RGB levels 0-255."""
    height, width = shape
    shade = 1.2 * noise_field(rng, shape, 240)
    light = np.asarray(GLASS_RGB, dtype=np.float32) + rng.normal(0, 1.2, 3).astype(np.float32)
    glass = light + shade[..., None]
    if rng.random() < DARK_EDGE_CHANCE:
        glass *= _edge_shadow(rng, height, width)[..., None]
    return np.asarray(glass, dtype=np.float32)


def _edge_shadow(rng: np.random.Generator, height: int, width: int) -> Floats:
    """Factor by which the slide holder darkens one or two sides: float32, (height, width), 0-1."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    distances = [x, width - 1 - x, y, height - 1 - y]
    shadow = np.ones((height, width), dtype=np.float32)
    for side in rng.choice(4, size=int(rng.integers(1, 3)), replace=False):
        depth = rng.uniform(6, 26)
        towards_edge = (depth - distances[int(side)]) / rng.uniform(2, 6)
        shadow *= 1 - rng.uniform(0.25, 0.45) * (1 + np.tanh(towards_edge / 2))
    return shadow


def mark_slide(rng: np.random.Generator, picture: Bytes) -> Bytes:
    """The RGB picture with, at random, a pen stroke or air bubbles on top: uint8, (height, width, 3)."""
    if rng.random() < PEN_CHANCE:
        picture = _pen_stroke(rng, picture)
    if rng.random() < BUBBLE_CHANCE:
        for _ in range(int(rng.integers(1, 4))):
            picture = _air_bubble(rng, picture)
    return picture


def _pen_stroke(rng: np.random.Generator, picture: Bytes) -> Bytes:
    """A hand-drawn line of uneven ink along the upper or lower edge."""
    height, width = picture.shape[:2]
    ink = np.asarray(INKS[int(rng.choice(len(INKS), p=INK_ODDS))], dtype=np.float32)
    length = int(rng.uniform(90, 240))
    x = rng.uniform(10, width - length - 10) + np.arange(length)
    base = rng.uniform(12, 50) if rng.random() < 0.5 else height - rng.uniform(12, 50)
    y = base + 7 * wave(rng, length, 60) + rng.uniform(-0.12, 0.12) * (np.arange(length) - length / 2)
    stroke = np.zeros((height, width), dtype=np.uint8)
    points = np.round(np.stack([x, y], axis=1) * 16).astype(np.int32)
    cv2.polylines(stroke, [points], False, 255, int(rng.integers(3, 7)), cv2.LINE_AA, 4)
    cover = cv2.GaussianBlur(stroke, (0, 0), 0.8).astype(np.float32) / 255
    cover *= np.clip(0.82 + 0.1 * noise_field(rng, (height, width), 5, along=20), 0, 0.95)
    return np.asarray(picture * (1 - cover[..., None]) + ink * cover[..., None], dtype=np.uint8)


def _air_bubble(rng: np.random.Generator, picture: Bytes) -> Bytes:
    """A ring of refracted light with a slightly brighter inside."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    radius = float(rng.uniform(12, 46))
    centre_x, centre_y = rng.uniform(0, width), rng.uniform(0, height)
    squash = rng.uniform(0.85, 1.15)
    distance = np.hypot((x - centre_x) * squash, y - centre_y) - radius
    dark = 0.42 * np.exp(-((distance / 1.7) ** 2))
    bright = 0.10 * np.exp(-(((distance + 4) / 2.2) ** 2)) + 0.03 * (distance < 0)
    return np.asarray(np.clip(picture * (1 - dark + bright)[..., None], 0, 255), dtype=np.uint8)
