"""The "slime": a glossy green splat on a copy of a slide, and in the copy's mask."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from doctogres.synthetic.noise import Bytes, Flags, Floats, noise_field

MEAN_SHARE: Final = 0.0368  # of the picture's area, as in the challenge
HUE: Final = (46, 66)  # OpenCV degrees (0-179)


def splat_shape(rng: np.random.Generator, shape: tuple[int, int]) -> Flags:
    """A star-like blob at a random angle, about 3.7 % of the picture and entirely inside it: bool, `shape`."""
    height, width = shape
    angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
    reach = 1 + 0.08 * np.cos(3 * angle + rng.uniform(0, 6.3))
    arms = int(rng.integers(7, 12))
    bearings = (np.arange(arms) + rng.uniform(-0.3, 0.3, arms)) * 2 * np.pi / arms
    for bearing in bearings:
        apart = np.angle(np.exp(1j * (angle - bearing)))
        reach += rng.uniform(0.25, 0.95) * np.exp(-((apart / rng.uniform(0.09, 0.17)) ** 2))
    squash, turn = rng.uniform(0.7, 1.0), rng.uniform(0, 2 * np.pi)
    x, y = reach * np.cos(angle), squash * reach * np.sin(angle)
    outline = np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1)
    area = cv2.contourArea(outline.astype(np.float32))
    outline *= np.sqrt(MEAN_SHARE * rng.uniform(0.8, 1.2) * height * width / area)
    low, high = outline.min(axis=0), outline.max(axis=0)
    room = np.maximum(np.array([width, height]) - 4 - (high - low), 0)
    outline += 2 - low + rng.uniform(0, 1, 2) * room
    canvas = np.zeros(shape, dtype=np.uint8)
    cv2.fillPoly(canvas, [np.round(outline).astype(np.int32)], 1)
    # Drops at the ends of the arms, as in a splash.
    centre = outline.mean(axis=0)
    for arm in rng.choice(arms, size=arms // 3, replace=False):
        tip = outline[int(np.degrees(bearings[arm])) % 360]
        spot = np.round(tip + (centre - tip) * 0.06).astype(int)
        cv2.circle(canvas, (int(spot[0]), int(spot[1])), int(rng.integers(5, 9)), 1, cv2.FILLED)
    return canvas.astype(np.bool_)


def with_splat(rng: np.random.Generator, picture: Bytes, mask: Bytes) -> tuple[Bytes, Bytes]:
    """The slide with a splat, and its mask with the splat's outline filled in white.

    Args:
        rng: Source of randomness.
        picture: The genuine slide: RGB, uint8, (height, width, 3).
        mask: Its mask: uint8, (height, width), 0 or 255.

    Returns:
        The contaminated picture and mask, of the same shapes.
    """
    shape = mask.shape[0], mask.shape[1]
    splat = splat_shape(rng, shape)
    slime = _glossy(rng, splat)
    spoiled = np.where(splat[..., None], slime, picture)
    return np.asarray(spoiled, dtype=np.uint8), np.where(splat, np.uint8(255), mask)


def _glossy(rng: np.random.Generator, splat: Flags) -> Bytes:
    """Green slime lit from the upper left: RGB, uint8, (height, width, 3); only the splat's pixels are meaningful."""
    shape = splat.shape[0], splat.shape[1]
    depth = np.asarray(cv2.distanceTransform(splat.astype(np.uint8), cv2.DIST_L2, 5), dtype=np.float32)
    bulge = np.asarray(cv2.GaussianBlur(np.minimum(depth, 26), (0, 0), 3), dtype=np.float32)
    bulge += 1.6 * noise_field(rng, shape, 24)
    slope: Floats = np.asarray(np.gradient(bulge, axis=1) + np.gradient(bulge, axis=0), dtype=np.float32)
    # The upper left of the bulge faces the light, so its slope is positive there.
    shine = np.clip(slope / 1.4, -1, 1)
    hue = rng.uniform(*HUE) + 3 * shine
    value = 205 + 38 * shine - 110 * np.exp(-depth / 2.2)
    gloss = np.clip((shine - 0.62) * 3, 0, 1) * (depth > 5)
    saturation = 232 - 12 * shine - 95 * gloss
    hsv = np.stack([hue, saturation, value + 60 * gloss], axis=-1)
    slime = np.asarray(cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB), dtype=np.uint8)
    glints = np.argwhere(depth > 8)
    for row, column in rng.permutation(glints)[: int(rng.integers(3, 8))].tolist():
        axes = (int(rng.integers(2, 6)), int(rng.integers(1, 3)))
        cv2.ellipse(slime, (column, row), axes, -40, 0, 360, (246, 255, 240), cv2.FILLED, cv2.LINE_AA)
    return slime
