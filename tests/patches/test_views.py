"""Views of a slide: tight boxes, windows, tiles."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctogres.patches.crops import cut_patches
from doctogres.patches.cutting import cut_cohort
from doctogres.patches.pixels import load_patches
from doctogres.patches.regions import find_patches, mask_regions
from doctogres.patches.squares import LEFT_OUT, tiles_of, windows_of
from doctogres.settings import PatchSettings
from tests.patches.test_pixels import cohort_row, draw_slide, table_of

SHAPE = (120, 160)


@pytest.mark.parametrize(
    ("patching", "views"),
    [
        ("regions", ("regions",)),
        ("window", ("window48",)),
        ("window, regions,window48", ("window48", "regions")),
        ("tiles,tiles64,window96", ("tiles32", "tiles64", "window96")),
    ],
)
def test_views_have_their_size_in_their_name(patching: str, views: tuple[str, ...]) -> None:
    assert PatchSettings(patching=patching, window=48, tile=32).views == views


@given(seed=st.integers(0, 100), side=st.sampled_from((16, 40, 64, 140, 200)))
def test_windows_show_all_but_two_percent_of_the_lesions_and_lie_in_the_picture(seed: int, side: int) -> None:
    mask = drawn_mask(seed)
    windows = windows_of(mask, side=side)
    shown = np.zeros_like(mask)
    for x, y, width, height, area in windows.tolist():
        assert (width, height) == (side, side)
        for start, length in ((x, SHAPE[1]), (y, SHAPE[0])):
            assert start == (length - side) // 2 if side > length else 0 <= start <= length - side
        inside = (slice(max(y, 0), y + side), slice(max(x, 0), x + side))
        assert area == mask[inside].sum() > 0
        shown[inside] = True
    assert (mask & ~shown).sum() <= LEFT_OUT * mask.sum()


def test_lesions_that_fit_into_one_window_share_it_in_the_middle() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[50:60, 60:70] = mask[50:60, 90:100] = True
    ((x, y, side, _, area),) = windows_of(mask, side=56).tolist()
    assert area == 200
    assert abs(x + side / 2 - 80) <= 2
    assert abs(y + side / 2 - 55) <= 2


def test_without_lesions_there_is_no_window() -> None:
    assert windows_of(np.zeros(SHAPE, bool), side=32).shape == (0, 5)


def test_a_window_is_cut_unscaled() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    settings = PatchSettings(patching="window", window=32, patch_size=32, margin=1.0)
    (patch,) = cut_patches(rgb, np.array([[70, 50, 32, 32, 60]]), settings)
    assert np.array_equal(patch, rgb[50:82, 70:102])


def drawn_mask(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mask = np.zeros(SHAPE, bool)
    for _ in range(3):
        x, y, width, height = (int(rng.integers(low, high)) for low, high in ((0, 120), (0, 90), (2, 90), (2, 60)))
        mask[y : y + height, x : x + width] = True
    return mask


@given(seed=st.integers(0, 200), side=st.sampled_from((16, 24, 40)))
def test_tiles_lie_in_the_mask_and_every_region_has_one(seed: int, side: int) -> None:
    mask = drawn_mask(seed)
    regions = mask_regions(mask)
    tiles = tiles_of(mask, regions, side=side)
    for x, y, width, height, area in tiles.tolist():
        assert (width, height) == (side, side)
        inside = mask[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)]
        assert area == inside.sum() > 0
    for x, y, width, height, _ in regions.tolist():
        touching = (
            (tiles[:, 0] < x + width) & (tiles[:, 0] + side > x) & (tiles[:, 1] < y + height) & (tiles[:, 1] + side > y)
        )
        assert touching.any()
    assert len({tuple(tile) for tile in tiles[:, :2].tolist()}) == len(tiles)


def test_a_large_lesion_is_covered_by_its_tiles() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[20:84, 30:126] = True
    tiles = tiles_of(mask, mask_regions(mask), side=32)
    assert len(tiles) == 6
    assert (tiles[:, 4] == 32 * 32).all()
    assert tiles[:, 4].sum() == mask.sum()


@pytest.mark.parametrize("view", ["tiles32", "window32"])
def test_squares_only_cover_regions_that_are_kept(view: str) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[20:60, 30:70] = mask[100:104, 140:144] = True
    tiles, kept, reasons = find_patches(mask, PatchSettings(min_area=100), view)
    assert kept.all()
    assert set(reasons) == {""}
    assert (tiles[:, 0] < 80).all()


def test_a_cohort_is_cut_into_every_view_at_once(tmp_path: Path) -> None:
    root = tmp_path / "slides"
    rows = [cohort_row(root, f"img_000{number}", *draw_slide(number)) for number in range(3)]
    settings = PatchSettings(patching="window64,regions,tiles16", patch_size=32, min_area=100)
    manifest, paths = cut_cohort(table_of(root, rows), root, settings, cache=tmp_path / "cache")
    assert [path.name.partition("-")[0] for path in paths] == list(settings.views)
    assert sorted(manifest.rows["view"].unique()) == ["regions", "tiles16", "window64"]
    assert manifest.rows["patch_id"].is_unique
    assert manifest.kept["view"].unique().tolist() == ["window64"]
    for view, path in zip(settings.views, paths, strict=True):
        patches = load_patches(manifest, view=view, cache=tmp_path / "cache")
        assert len(patches.table) == len(patches.pixels)
        assert patches.table["view"].unique().tolist() == [view]
        kept, before = np.array(patches.pixels), path.read_bytes()
        path.unlink()
        again = load_patches(manifest, view=view, cache=tmp_path / "cache")  # cut again from the slides
        assert np.array_equal(again.pixels, kept)
        assert path.read_bytes() == before
