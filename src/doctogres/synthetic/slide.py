"""One genuine slide, from glass to mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from doctogres.synthetic.cells import draw_epithelium
from doctogres.synthetic.glass import bare_glass, mark_slide
from doctogres.synthetic.lesions import foreign_look, lesion_mask, place_regions, region_look, slide_mixture
from doctogres.synthetic.noise import Bytes, Flags, Floats, blob_outline, filled
from doctogres.synthetic.stain import stained_light
from doctogres.synthetic.tissue import draw_furniture, draw_stroma_cells, find_spot, strip_depth, stroma

SHORT_SIDE: Final = (496, 529)  # px, half-open
LONG_SIDE: Final = (640, 1401)  # px, half-open
UPRIGHT_CHANCE: Final = 0.15


@dataclass(frozen=True)
class Slide:
    """A drawn slide.

    Attributes:
        picture: RGB, uint8, (height, width, 3).
        mask: uint8, (height, width), 255 in lesions and specks, else 0.
        depth: float32, (height, width): distance inside the tissue, px; negative on glass.
    """

    picture: Bytes
    mask: Bytes
    depth: Floats


def draw_slide(rng: np.random.Generator, label: str) -> Slide:
    """Draw a genuine slide; the label affects only the cells inside the regions."""
    shape = int(rng.integers(*SHORT_SIDE)), int(rng.integers(*LONG_SIDE))
    glass = bare_glass(rng, shape)
    depth = strip_depth(rng, shape)
    pigment = stroma(rng, shape)
    free = np.asarray(depth > 4, dtype=np.uint8)
    regions = place_regions(rng, free)
    draw_stroma_cells(rng, pigment, depth > 1)
    nests = _place_nests(rng, free)
    draw_furniture(rng, pigment, free)
    for nest in nests:
        draw_epithelium(rng, pigment, nest, foreign_look(rng))
    mixture = slide_mixture(rng, label)
    for region in regions:
        draw_epithelium(rng, pigment, region, region_look(rng, mixture))
    cover = np.clip(depth / 2.5 + 0.5, 0, 1)
    picture = mark_slide(rng, stained_light(rng, pigment, cover, glass))
    mask = lesion_mask(rng, shape, regions)
    if rng.random() < UPRIGHT_CHANCE:
        picture, mask, depth = np.rot90(picture), np.rot90(mask), np.rot90(depth)
    # OpenCV needs contiguous arrays, which a rotated view is not.
    return Slide(np.ascontiguousarray(picture), np.ascontiguousarray(mask), np.ascontiguousarray(depth))


def _place_nests(rng: np.random.Generator, free: Bytes) -> list[Flags]:
    """Patches of epithelium outside the mask, so that the label cannot be told from what lies outside the regions."""
    nests = []
    for _ in range(int(rng.integers(3, 9))):
        side = float(rng.uniform(20, 62))
        spot = find_spot(rng, free, 0.4 * side)
        if spot is None:
            continue
        outline = blob_outline(rng, side, side * rng.uniform(0.6, 1)) + np.array(spot, dtype=np.float32)
        nest = filled((free.shape[0], free.shape[1]), outline) & (free > 0)
        nests.append(nest)
        free[cv2.dilate(nest.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0] = 0
    return nests
