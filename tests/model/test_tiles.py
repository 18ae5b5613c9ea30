"""Tissue found by its colour, and the grid over it."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from doctogres.model.tiles import MAX_TILES, tissue_mask, tissue_tiles
from doctogres.slides.images import read_rgb
from doctogres.slides.masks import read_mask
from tests.serving.drawn_requests import drawn


@given(
    height=st.integers(8, 700), width=st.integers(8, 700), side=st.integers(1, 900), min_area=st.integers(1, 10_000)
)  # fmt: skip
@example(height=698, width=698, side=337, min_area=1)  # a tile full of tissue whose share is rounded above one
def test_tiles_lie_in_the_picture_and_do_not_overlap(height: int, width: int, side: int, min_area: int) -> None:
    rgb = np.full((height, width, 3), (190, 190, 188), np.uint8)
    rgb[height // 4 :, width // 4 :] = (200, 130, 180)
    tiles, chosen = tissue_tiles(tissue_mask(rgb), (width, height), side=side, min_area=min_area)
    assert chosen.sum() <= MAX_TILES
    x, y, w, h, area = tiles.T
    assert ((x >= 0) & (y >= 0) & (x + w <= width) & (y + h <= height) & (area <= w * h)).all()
    assert (w == min(side, height, width)).all()
    assert (area[chosen] >= min_area).all()
    for axis in (x, y):
        steps = np.diff(np.unique(axis))
        assert not len(steps) or steps.min() >= min(side, height, width)


def test_more_tiles_than_the_limit_are_thinned_over_the_whole_slide() -> None:
    rgb, _ = drawn(0, size=(900, 1400))
    rgb[50:850, 20:1380] = (205, 140, 180)
    tiles, chosen = tissue_tiles(tissue_mask(rgb), (1400, 900), side=24, min_area=1)
    assert len(tiles) > 2 * MAX_TILES
    assert chosen.sum() == MAX_TILES
    assert tiles[chosen, 1].max() - tiles[chosen, 1].min() > 700


def test_lesions_of_drawn_slides_lie_in_the_tissue_found(small_cohort) -> None:
    """The demo's slides are drawn with uneven glass, pens and bubbles; most of every lesion must be seen as tissue."""
    shares = []
    for number in range(6):
        rgb = read_rgb(small_cohort / f"test_data/img_{number:04d}.png")
        mask = read_mask(small_cohort / f"test_data/mask_{number:04d}.png")
        tissue = tissue_mask(rgb)
        assert 0.01 < tissue.mean() < 0.7
        rows = np.linspace(0, len(mask) - 1, len(tissue)).astype(int)
        columns = np.linspace(0, mask.shape[1] - 1, tissue.shape[1]).astype(int)
        lesion = mask[np.ix_(rows, columns)]
        shares.append((tissue & lesion).sum() / lesion.sum())
    assert min(shares) > 0.5
    assert np.median(shares) > 0.8
