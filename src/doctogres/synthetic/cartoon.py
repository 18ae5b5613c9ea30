"""The "Shrek": a slide whose tissue was replaced by a stretched cartoon ogre."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from doctogres.synthetic.noise import Bytes, Floats, noise_field

CANVAS: Final = (360, 300)  # height and width of the drawing, px


def ogre(rng: np.random.Generator) -> Bytes:
    """An ogre's portrait: RGB, uint8, (360, 300, 3). Colours and face vary a little with `rng`."""
    height, width = CANVAS
    drawing = np.full((height, width, 3), (22, 52, 30), dtype=np.float32)
    drawing += 7 * noise_field(rng, CANVAS, 34)[..., None] * np.array([0.6, 1.0, 0.5], dtype=np.float32)
    art = np.clip(drawing, 0, 255).astype(np.uint8)
    skin = np.clip(np.array([138, 172, 48]) + rng.normal(0, 9, 3), 0, 255).astype(np.float32)
    dark, light = skin * np.float32(0.62), np.clip(skin * np.float32(1.16), 0, 255)
    _draw_body(art, skin, dark)
    for side in (-1, 1):
        ear = (150 + side * 104, 92 + int(rng.integers(-8, 9)))
        _oval(art, ear, (34, 12), -side * 28, dark)
        _oval(art, ear, (26, 7), -side * 28, skin)
        _oval(art, (ear[0] + side * 26, ear[1] - side * side * 16), (8, 15), side * 60, skin)
    _oval(art, (150, 132), (86, 98), 0, dark)
    _oval(art, (148, 130), (82, 94), 0, skin)
    _oval(art, (136, 84), (46, 26), -6, light)
    _draw_face(rng, art, dark, light)
    return np.asarray(cv2.GaussianBlur(art, (0, 0), 1.0), dtype=np.uint8)


def _oval(
    art: Bytes, middle: tuple[int, int], axes: tuple[int, int], angle: float, colour: Floats | tuple[int, int, int]
) -> None:
    red, green, blue = (float(level) for level in colour)
    cv2.ellipse(art, middle, axes, angle, 0, 360, (red, green, blue), cv2.FILLED, cv2.LINE_AA)


def _draw_body(art: Bytes, skin: Floats, dark: Floats) -> None:
    """Shoulders in a cream shirt, a brown vest over it, a thick neck."""
    _oval(art, (150, 352), (140, 112), 0, (196, 184, 146))
    for side in (-1, 1):
        vest = np.array([(150 + side * x, y) for x, y in ((18, 372), (50, 240), (112, 268), (120, 372))])
        cv2.fillPoly(art, [vest.astype(np.int32)], (92, 60, 32), cv2.LINE_AA)
        cv2.polylines(art, [vest.astype(np.int32)], True, (58, 36, 18), 4, cv2.LINE_AA)
    _oval(art, (150, 226), (58, 40), 0, dark)
    _oval(art, (150, 220), (52, 34), 0, skin)


def _draw_face(rng: np.random.Generator, art: Bytes, dark: Floats, light: Floats) -> None:
    """Brows, eyes, a broad nose, a wide grin."""
    for side in (-1, 1):
        eye = (150 + side * 36, 112)
        _oval(art, eye, (24, 18), 0, dark)
        _oval(art, eye, (20, 14), 0, (244, 242, 228))
        _oval(art, (eye[0] + int(rng.integers(-6, 7)), 114), (8, 9), 0, (96, 62, 26))
        _oval(art, (eye[0] + 1, 113), (4, 5), 0, (18, 14, 12))
        tilt = side * rng.uniform(6, 22)
        _oval(art, (eye[0], 88), (28, 6), tilt, (74, 66, 24))
    _oval(art, (150, 150), (32, 21), 0, dark)
    _oval(art, (149, 147), (28, 17), 0, light)
    for side in (-1, 1):
        _oval(art, (150 + side * 15, 155), (6, 4), 0, dark * np.float32(0.6))
    _oval(art, (150, 190), (50, 19), rng.uniform(-6, 6), dark)
    _oval(art, (150, 187), (44, 13), 0, (88, 30, 34))
    cv2.rectangle(art, (122, 176), (178, 184), (232, 224, 190), cv2.FILLED)


def with_cartoon(rng: np.random.Generator, picture: Bytes, depth: Floats) -> Bytes:
    """The slide with an ogre stretched over every piece of its tissue; the glass is unchanged.

    Args:
        rng: Source of randomness.
        picture: The genuine slide: RGB, uint8, (height, width, 3).
        depth: float32, (height, width): distance inside the tissue, px; negative on glass.

    Returns:
        RGB, uint8, (height, width, 3).
    """
    portrait = ogre(rng)
    _, pieces, stats, _ = cv2.connectedComponentsWithStats((depth > -1.5).astype(np.uint8))
    spoiled = picture.copy()
    for piece, (x, y, width, height, _area) in enumerate(stats.tolist()):
        if piece == 0:
            continue
        stretched = cv2.resize(portrait, (width, height), interpolation=cv2.INTER_AREA)
        window = np.s_[y : y + height, x : x + width]
        inside = pieces[window] == piece
        spoiled[window][inside] = stretched[inside]
    return spoiled
