"""Mask -> regions -> boxes -> crops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydantic import ValidationError
from scipy import ndimage

from doctogres.patches.crops import crop, cut_patches
from doctogres.patches.regions import find_patches, mask_regions, select_regions
from doctogres.patches.views import crop_box
from doctogres.settings import PatchSettings

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 24), st.integers(1, 24)))
BOXES = st.tuples(st.integers(0, 30), st.integers(0, 20), st.integers(1, 12), st.integers(1, 12))
MARGINS = st.floats(0, 4)


@pytest.fixture
def picture():
    """44 px wide, 34 px high: every box of BOXES fits in."""
    return np.random.default_rng(0).integers(0, 256, (34, 44, 3), dtype=np.uint8)


def regions_of(*areas):
    return np.array([(10 * i, 0, 5, 5, area) for i, area in enumerate(areas)], np.int64).reshape(-1, 5)


def scipy_regions(mask):
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    boxes = ndimage.find_objects(labels)
    areas = ndimage.sum_labels(mask, labels, range(1, count + 1))
    return [
        (x.start, y.start, x.stop - x.start, y.stop - y.start, int(area))
        for (y, x), area in zip(boxes, areas, strict=True)
    ]


@given(MASKS)
def test_regions_are_the_8_connected_components_with_their_tight_boxes(mask):
    regions = mask_regions(mask)
    assert regions.dtype == np.int64
    assert regions.shape[1] == 5
    assert sorted(map(tuple, regions.tolist())) == sorted(scipy_regions(mask))


@given(MASKS)
def test_regions_come_in_reading_order(mask):
    corners = [(y, x) for x, y, *_ in mask_regions(mask).tolist()]
    assert corners == sorted(corners)


def test_a_flipped_view_of_a_mask_has_the_regions_of_its_copy():
    mask = np.random.default_rng(1).random((20, 30)) < 0.3
    assert np.array_equal(mask_regions(mask[::-1, ::2]), mask_regions(mask[::-1, ::2].copy()))


def test_a_diagonal_touch_joins_and_a_gap_divides():
    assert mask_regions(np.eye(3, dtype=bool)).tolist() == [[0, 0, 3, 3, 3]]
    assert mask_regions(np.array([[1, 0, 1]], bool)).tolist() == [[0, 0, 1, 1, 1], [2, 0, 1, 1, 1]]


@given(st.lists(st.integers(1, 400), max_size=8), st.integers(1, 400))
def test_every_region_is_kept_or_has_a_reason_and_a_slide_with_regions_keeps_one(areas, min_area):
    kept, reasons = select_regions(regions_of(*areas), min_area=min_area)
    assert len(kept) == len(reasons) == len(areas)
    assert kept.any() == bool(areas)
    if max(areas, default=0) >= min_area:
        assert kept.tolist() == [area >= min_area for area in areas]
    else:
        assert kept.sum() == min(1, len(areas))
    for keep, reason, area in zip(kept, reasons, areas, strict=True):
        code = reason.partition(":")[0]
        assert code == ("small_region" if not keep else "" if area >= min_area else "largest_region")


def test_the_area_itself_is_large_enough():
    kept, reasons = select_regions(regions_of(199, 200), min_area=200)
    assert kept.tolist() == [False, True]
    assert reasons == ["small_region: 199 px, under 200 px", ""]


def test_the_largest_speck_stands_for_a_slide_that_has_only_specks_and_its_reason_says_so():
    kept, reasons = select_regions(regions_of(20, 70, 30), min_area=200)
    assert kept.tolist() == [False, True, False]
    assert reasons[1] == "largest_region: no region reaches 200 px; the largest, 70 px, represents the slide"
    assert reasons[0].startswith("small_region")


@given(BOXES, MARGINS)
def test_the_crop_box_is_a_centred_square_around_the_region_with_the_margin(box, margin):
    x, y, width, height = box
    left, top, side = crop_box(np.array(box), margin=margin)
    assert side >= max(width, height)
    assert abs(side - max(width, height) * (1 + 2 * margin)) <= 0.5
    assert abs((left + side / 2) - (x + width / 2)) <= 0.5
    assert abs((top + side / 2) - (y + height / 2)) <= 0.5
    assert left <= x
    assert top <= y
    assert left + side >= x + width
    assert top + side >= y + height


@given(box=BOXES, margin=MARGINS)
def test_beyond_the_edge_the_edge_pixels_are_repeated(box, margin):
    rgb = np.random.default_rng(0).integers(0, 256, (34, 44, 3), dtype=np.uint8)
    left, top, side = crop_box(np.array(box), margin=margin)
    around = 64
    padded = np.pad(rgb, ((around, around), (around, around), (0, 0)), mode="edge")
    expected = padded[top + around : top + around + side, left + around : left + around + side]
    assert np.array_equal(crop(rgb, crop_box(np.array(box), margin=margin), size=side), expected)


@given(box=BOXES, margin=MARGINS, size=st.integers(1, 64), colour=st.tuples(*[st.integers(0, 255)] * 3))
def test_a_crop_of_one_colour_is_that_colour_in_the_asked_size(box, margin, size, colour):
    patch = crop(np.full((34, 44, 3), colour, np.uint8), crop_box(np.array(box), margin=margin), size=size)
    assert patch.shape == (size, size, 3)
    assert patch.dtype == np.uint8
    assert (patch == colour).all()


@settings(max_examples=50, deadline=None)
@given(
    x=st.integers(0, 24), y=st.integers(0, 14), side=st.sampled_from((4, 8, 12, 20)),
    margin=st.sampled_from((0.0, 0.25, 1.0)), size=st.sampled_from((8, 16, 17, 32)),
)  # fmt: skip
def test_cropping_commutes_with_a_quarter_turn(x, y, side, margin, size):
    rgb = np.random.default_rng(0).integers(0, 256, (34, 44, 3), dtype=np.uint8)
    turned = np.ascontiguousarray(np.rot90(rgb))
    turned_box = np.array([y, rgb.shape[1] - x - side, side, side])
    straight = np.rot90(crop(rgb, crop_box(np.array([x, y, side, side]), margin=margin), size=size)).astype(int)
    around = crop(turned, crop_box(turned_box, margin=margin), size=size).astype(int)
    assert np.abs(straight - around).max() <= 2


def test_a_region_in_the_corner_is_cut_around_its_centre(picture):
    picture[:] = 0
    picture[0, 0] = 255
    patch = crop(picture, crop_box(np.array([0, 0, 1, 1]), margin=2.0), size=5)
    assert (patch[:3, :3] == 255).all()  # the lit corner, repeated outwards
    assert not patch[3:].any()
    assert not patch[:, 3:].any()


def test_patches_keep_the_order_of_their_regions(picture):
    regions = np.array([[30, 20, 4, 6, 24], [0, 0, 9, 3, 27]])
    chosen = PatchSettings(patch_size=16, margin=0.5)
    pixels = cut_patches(picture, regions, chosen)
    assert pixels.shape == (2, 16, 16, 3)
    assert pixels.dtype == np.uint8
    for patch, region in zip(pixels, regions, strict=True):
        assert np.array_equal(patch, crop(picture, crop_box(region, margin=0.5), size=16))


def test_no_regions_give_no_patches(picture):
    regions, kept, reasons = find_patches(np.zeros(picture.shape[:2], bool), PatchSettings(patch_size=16))
    assert regions.shape == (0, 5)
    assert kept.shape == (0,)
    assert reasons == []
    assert cut_patches(picture, regions, PatchSettings(patch_size=16)).shape == (0, 16, 16, 3)


@given(MASKS, st.integers(1, 9))
def test_finding_patches_is_regions_then_selection(mask, min_area):
    regions, kept, reasons = find_patches(mask, PatchSettings(min_area=min_area))
    assert np.array_equal(regions, mask_regions(mask))
    expected_kept, expected_reasons = select_regions(regions, min_area=min_area)
    assert np.array_equal(kept, expected_kept)
    assert reasons == expected_reasons


@given(MASKS)
def test_patching_whole_takes_the_whole_picture_whatever_the_mask(mask):
    regions, kept, reasons = find_patches(mask, PatchSettings(min_area=10_000), "whole")
    assert regions.tolist() == [[0, 0, mask.shape[1], mask.shape[0], int(mask.sum())]]
    assert kept.tolist() == [True]
    assert reasons == [""]


def test_a_whole_picture_gets_no_margin():
    square = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    whole = PatchSettings(patching="whole", patch_size=16, margin=2.0)
    regions, _, _ = find_patches(np.ones((16, 16), bool), whole, "whole")
    assert np.array_equal(cut_patches(square, regions, whole)[0], square)


@pytest.mark.parametrize(
    "values",
    [
        {"patch_size": 8},
        {"min_area": 0},
        {"margin": -0.1},
        {"patching": "glass"},
        {"patching": ""},
        {"patching": "tiles8"},
        {"size": 224},
    ],
)
def test_settings_that_cannot_work_are_refused(values):
    with pytest.raises(ValidationError, match=next(iter(values))):
        PatchSettings(**values)


def test_shrinking_averages_and_does_not_alias():
    """A pattern of single pixels, as of a halftone, becomes its mean and no coarser pattern."""
    rows, columns = np.mgrid[:96, :96]
    checks = np.repeat((255 * ((rows + columns) % 2))[..., None], 3, axis=2).astype(np.uint8)
    patch = crop(checks, (0, 0, 96), size=40).astype(int)
    assert abs(patch - 127).max() <= 30
    assert patch.mean() == pytest.approx(127.5, abs=1)


def test_enlarging_is_smooth():
    step = np.zeros((8, 8, 3), np.uint8)
    step[:, 4:] = 200
    patch = crop(step, (0, 0, 8), size=64)
    assert len(np.unique(patch[32])) > 10  # a ramp, where blocks would have two values


@pytest.mark.parametrize("sizes", [(3, 6), (6, 3)])
def test_regions_that_begin_in_one_row_come_from_left_to_right(sizes):
    mask = np.zeros((20, 30), bool)
    for left, size in zip((2, 15), sizes, strict=True):
        mask[5 : 5 + size, left : left + size] = True
    assert mask_regions(mask)[:, 0].tolist() == [2, 15]
