"""Near-copies meet, whatever their turn; others do not."""

import cv2
import numpy as np
import pdqhash
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.near_duplicates import made_hashes
from doctogres.cleaning.duplicates import _coefficients, _turned_bits, hash_picture, near_duplicates
from doctogres.cleaning.slime import find_splat
from doctogres.slides.tissue import glass_colour, silhouette, working_copy
from doctogres.slides.turns import TURNS, turned
from tests.cleaning.drawn_slides import draw_splat, draw_tissue


def print_of(rgb):
    small = working_copy(rgb)
    splat = find_splat(small)
    return hash_picture(small, silhouette(small, glass_colour(small)), None if splat is None else splat.mask)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 30), st.integers(0, 3), st.booleans())
def test_a_turned_or_flipped_slide_joins_its_original(seed, quarter, flip):
    rgb, _ = draw_tissue(seed)
    turned = np.rot90(rgb, quarter)[:, :: -1 if flip else 1]
    prints = [print_of(draw_tissue(seed + 100)[0]), print_of(rgb), print_of(np.ascontiguousarray(turned))]
    assert near_duplicates(prints) == [(1, 2)]


def test_a_slimed_slide_joins_its_original(slides):
    originals = [rgb for rgb, _ in slides.values()]
    slimed = [draw_splat(rgb, mask)[0] for rgb, mask in slides.values()]
    clusters = near_duplicates([print_of(rgb) for rgb in originals + slimed])
    assert clusters == [(i, i + len(originals)) for i in range(len(originals))]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, len(TURNS) - 1))
def test_the_bits_of_a_turned_picture_are_those_of_the_library(seed, turn):
    noise = np.random.default_rng(seed).integers(0, 256, (64, 64), np.uint8)
    picture = cv2.GaussianBlur(noise, (0, 0), 2).astype(np.uint8)
    wanted, _ = pdqhash.compute(np.repeat(turned(picture, turn)[..., None], 3, axis=2))
    # The library computes in single precision, and the coefficients are kept in half of it.
    assert np.count_nonzero(_turned_bits(_coefficients(picture)[None], turn).ravel() != wanted) <= 4


@pytest.mark.parametrize("scale", [0.5, 0.8, 1.7])
def test_a_rescaled_copy_joins_its_original(slides, scale):
    originals = [rgb for rgb, _ in slides.values()]
    scaled = [cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) for rgb in originals]
    clusters = near_duplicates([print_of(rgb) for rgb in originals + scaled])
    assert clusters == [(i, i + len(originals)) for i in range(len(originals))]


def test_copies_are_found_among_thousands():
    prints, pairs = made_hashes(4000, error=0.1)
    assert set(near_duplicates(prints)) == pairs


def test_a_compressed_copy_joins_its_original():
    rgb, _ = draw_tissue(5)
    packed = cv2.imdecode(cv2.imencode(".jpg", rgb)[1], cv2.IMREAD_UNCHANGED)
    assert near_duplicates([print_of(rgb), print_of(packed)]) == [(0, 1)]


def test_mostly_empty_slides_are_not_copies_of_each_other():
    glass = np.full((384, 512, 3), (190, 190, 188), np.uint8)
    specks = []
    for seed in range(12):
        picture = glass.copy()
        rng = np.random.default_rng(seed)
        x, y = rng.integers(50, 300, 2)
        picture[y : y + 40, x : x + 60] = rng.integers(60, 190, (40, 60, 3))
        specks.append(print_of(picture))
    assert near_duplicates(specks) == []
    assert near_duplicates([]) == []
