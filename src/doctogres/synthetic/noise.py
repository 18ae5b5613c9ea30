"""Random fields used by all drawing functions, and names for their array types."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]


def noise_field(rng: np.random.Generator, shape: tuple[int, int], cell: float, *, along: float | None = None) -> Floats:
    """Smooth noise of about zero mean and unit spread.

    Args:
        rng: Source of randomness.
        shape: Height and width, px.
        cell: Size of a blob, px; its height if `along` is given.
        along: Width of a blob, px, for streaks that run along x.

    Returns:
        float32, `shape`.
    """
    height, width = shape
    rows, columns = (max(2, round(side / size)) for side, size in ((height, cell), (width, along or cell)))
    coarse = rng.standard_normal((rows + 1, columns + 1), dtype=np.float32)
    # Cubic interpolation reduces the spread by about a third.
    coarse *= np.float32(1.35)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def wave(rng: np.random.Generator, length: int, cell: float) -> Floats:
    """Smooth noise along one axis: float32, (length,), about zero mean and unit spread."""
    knots = rng.standard_normal((1, max(2, round(length / cell)) + 1), dtype=np.float32)
    return np.asarray(cv2.resize(knots, (length, 1), interpolation=cv2.INTER_CUBIC), dtype=np.float32).reshape(length)


def blob_outline(rng: np.random.Generator, width: float, height: float, *, wobble: float = 0.16) -> Floats:
    """An irregular closed outline about the origin.

    Args:
        rng: Source of randomness.
        width: Width of the outline, px.
        height: Height of the outline, px.
        wobble: Spread of the radius around an ellipse.

    Returns:
        float32, (48, 2), x and y in px, stretched to exactly `width` by `height`.
    """
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = np.ones_like(angle)
    for order in range(2, 7):
        radius += wobble * rng.standard_normal() / order**0.7 * np.cos(order * angle + rng.uniform(0, 2 * np.pi))
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.clip(radius, 0.35, None)[:, None]
    low, high = points.min(axis=0), points.max(axis=0)
    unit = (points - low) / (high - low) - 0.5
    return np.asarray(unit * (width, height), dtype=np.float32)


def filled(shape: tuple[int, int], outline: Floats) -> Flags:
    """The pixels inside an outline of (x, y) points: bool, `shape`."""
    canvas = np.zeros(shape, dtype=np.uint8)
    cv2.fillPoly(canvas, [np.round(outline).astype(np.int32)], 1)
    return canvas.astype(np.bool_)
