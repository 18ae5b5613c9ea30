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


GLOSSY = (40, 220, 20)


def blob(colour, *, centre=(256, 60), axes=(45, 40)):
    """An even ellipse on a slide."""
    rgb, _ = draw_tissue(2)
    cv2.ellipse(rgb, centre, axes, 0, 0, 360, colour, cv2.FILLED)
    return rgb


def bar(x, y, *, width=120, height=20):
    rgb, _ = draw_tissue(2)
    cv2.rectangle(rgb, (x, y), (x + width - 1, y + height - 1), GLOSSY, cv2.FILLED)
    return rgb


def test_a_large_compact_bright_and_saturated_green_is_a_splat():
    assert find_splat(blob(GLOSSY)) is not None
    assert find_splat(blob(GLOSSY, centre=(256, 0))) is not None, "half of it beyond the edge"


@pytest.mark.parametrize(
    "rgb",
    [
        pytest.param(blob(GLOSSY, axes=(9, 8)), id="a dot"),
        pytest.param(blob((20, 110, 10)), id="matt and dark"),
        pytest.param(blob((120, 220, 110)), id="pale"),
        pytest.param(blob((220, 40, 20)), id="red"),
        pytest.param(blob((20, 60, 220)), id="blue"),
        pytest.param(bar(180, 60), id="a broad stroke"),
        pytest.param(bar(180, 0), id="along the upper edge"),
        pytest.param(bar(180, 364), id="along the lower edge"),
        pytest.param(bar(0, 100, width=20, height=120), id="along the left edge"),
        pytest.param(bar(492, 100, width=20, height=120), id="along the right edge"),
    ],
)
def test_green_that_lacks_one_of_these_is_none(rgb):
    assert find_splat(rgb) is None
