"""Splats, and what is not one."""

import cv2
import numpy as np
import pytest

from doctogres.cleaning.slime import find_splat, remove_splat
from tests.cleaning.drawn_slides import draw_splat, draw_tissue


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [1, 3])
def test_a_splat_is_found_where_it_is(seed, scale):
    rgb, mask = draw_tissue(seed)
    slimed, marked = draw_splat(rgb, np.zeros_like(mask))
    slimed, marked = (np.kron(a, np.ones((scale, scale, *[1] * (a.ndim - 2)), a.dtype)) for a in (slimed, marked))
    splat = find_splat(slimed)
    assert splat is not None
    assert splat.area_share == pytest.approx(marked.mean(), rel=0.3)
    assert (splat.mask & marked).sum() >= 0.98 * marked.sum()
    assert len(splat.outlines) == 1


def test_the_mask_gets_its_lesions_back():
    rgb, mask = draw_tissue(0)
    slimed, marked = draw_splat(rgb, mask, centre=(256, 60))
    repaired = remove_splat(marked, slimed)
    assert not (repaired & ~mask).any()
    assert np.array_equal(remove_splat(mask, rgb), mask)


def test_ink_strokes_and_tinted_tissue_are_no_splats():
    rgb, _ = draw_tissue(1)
    inked = rgb.copy()
    cv2.polylines(inked, [np.array([[30, 40], [200, 60], [300, 30], [480, 90]])], False, (30, 160, 60), 7)
    assert find_splat(inked) is None
    tinted = (0.75 * rgb + 0.25 * np.array([120, 200, 120])).astype(np.uint8)
    assert find_splat(tinted) is None
