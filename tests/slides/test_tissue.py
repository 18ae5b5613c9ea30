"""The colour verdict."""

import numpy as np
import pytest

from doctogres.slides.tissue import glass_colour, judge_colour, silhouette, working_copy
from tests.cleaning.drawn_slides import GLASS, STAINS, draw_cartoon, draw_tissue


def verdict(rgb):
    small = working_copy(rgb)
    glass = glass_colour(small)
    return judge_colour(small, silhouette(small, glass), glass).kind


@pytest.mark.parametrize("stain", STAINS)
@pytest.mark.parametrize("tint", [(1, 1, 1), (0.93, 1, 0.95), (0.9, 0.95, 1.05), (1.05, 1, 0.88)])
def test_tissue_of_any_stain_and_tint_is_tissue_and_the_cartoon_in_it_is_not(stain, tint):
    rgb, _ = draw_tissue(1, stain=stain)
    assert verdict((rgb * tint).clip(0, 255).astype(np.uint8)) == "tissue"
    assert verdict((draw_cartoon(rgb) * tint).clip(0, 255).astype(np.uint8)) == "cartoon"


def test_a_grey_scan_and_an_empty_slide_are_never_cartoons():
    rgb, _ = draw_tissue(2)
    assert verdict(np.repeat(rgb.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)) == "unsure"
    assert verdict(np.full((50, 50, 3), GLASS, np.uint8)) == "unsure"


def test_the_glass_is_found_in_spite_of_the_tissue():
    small = working_copy(draw_tissue(3)[0])
    assert np.abs(glass_colour(small) - GLASS).max() < 2
    assert 0.02 < silhouette(small, np.array(GLASS, float)).mean() < 0.5


def test_a_picture_without_glass_is_judged_too():
    rgb = np.full((64, 64, 3), (150, 80, 160), np.uint8)
    assert verdict(rgb) == "tissue"
