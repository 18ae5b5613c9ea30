"""Cutting a cohort, and the cache of the pixels."""

import hashlib
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from doctogres.cleaning.reading import read_slide
from doctogres.disk import size_text
from doctogres.errors import CohortError, DiskFullError, DoctogresError
from doctogres.patches import cutting, pixels
from doctogres.patches.crops import cut_patches
from doctogres.patches.cutting import cut_cohort
from doctogres.patches.manifest import COLUMNS, DROPPED, KEPT, Manifest
from doctogres.patches.pixels import load_patches
from doctogres.patches.regions import mask_regions
from doctogres.settings import PatchSettings
from doctogres.slides import images
from doctogres.slides.figures import figures
from doctogres.slides.masks import SizeMismatchError
from doctogres.slides.table import COLUMNS as COHORT_COLUMNS
from doctogres.slides.table import DROPPED as SLIDE_DROPPED
from doctogres.slides.table import KEPT as SLIDE_KEPT
from doctogres.slides.table import REPAIRED, REVIEW, CohortTable
from doctogres.slides.tissue import ReducedPicture
from tests.disks import small_disk

SETTINGS = PatchSettings(patch_size=32, min_area=100)
SPLAT = (60, 60, 30)  # x, y, radius


def draw_slide(seed):
    """Noise, 160 px wide and 120 px high, with two lesions of at least 100 px and a speck of 9 px."""
    rng = np.random.default_rng(seed)
    rgb = rng.integers(120, 220, (120, 160, 3), dtype=np.uint8)
    mask = np.zeros((120, 160), bool)
    mask[100:112, 5 + seed : 20 + seed] = True
    mask[4:18, 110:130] = True
    mask[60:63, 140:143] = True
    return rgb, mask


def draw_splat(rgb, mask):
    """A big bright green glossy blob on the picture, marked in the mask like a lesion."""
    x, y, radius = SPLAT
    slimed, marked = rgb.copy(), mask.astype(np.uint8)
    cv2.circle(slimed, (x, y), radius, (30, 210, 20), cv2.FILLED)
    cv2.circle(slimed, (x - 8, y - 8), 6, (255, 255, 255), cv2.FILLED)
    cv2.circle(marked, (x, y), radius, 1, cv2.FILLED)
    return slimed, marked.astype(bool)


def write_slide(root, slide, rgb, mask):
    (root / "train_data").mkdir(parents=True, exist_ok=True)
    picture, drawn = root / f"train_data/{slide}.png", root / f"train_data/{slide.replace('img', 'mask')}.png"
    cv2.imwrite(str(picture), rgb[..., ::-1])
    cv2.imwrite(str(drawn), mask.astype(np.uint8) * 255)
    return picture, drawn


def cohort_row(root, slide, rgb, mask, *, outcome=SLIDE_KEPT, label="a", fold="fold0"):
    picture, drawn = write_slide(root, slide, rgb, mask)
    return {
        "slide_id": slide, "image": f"train_data/{picture.name}", "mask": f"train_data/{drawn.name}",
        "label": label, "group": f"case-{slide}", "width": rgb.shape[1], "height": rgb.shape[0],
        "image_md5": hashlib.md5(picture.read_bytes()).hexdigest(),
        "mask_md5": hashlib.md5(drawn.read_bytes()).hexdigest(),
        "twin_of": None, "outcome": outcome, "reason": "" if outcome == SLIDE_KEPT else "colour: drawn", "fold": fold,
    }  # fmt: skip


def table_of(root, rows):
    return CohortTable(pd.DataFrame(rows, columns=list(COHORT_COLUMNS)), root, "digest")


@pytest.fixture
def root(tmp_path):
    return tmp_path / "slides"


@pytest.fixture
def cohort(root):
    """Kept, repaired, dropped and for review: img_0000 to img_0003."""
    rows = [
        cohort_row(root, "img_0000", *draw_slide(0)),
        cohort_row(root, "img_0001", *draw_splat(*draw_slide(1)), outcome=REPAIRED, label="b", fold="holdout"),
        cohort_row(root, "img_0002", *draw_slide(2), outcome=SLIDE_DROPPED),
        cohort_row(root, "img_0003", *draw_slide(3), outcome=REVIEW, fold="fold1"),
    ]
    return table_of(root, rows)


@pytest.fixture
def cut(cohort, root, tmp_path):
    """The manifest and the only part of its pixels."""
    manifest, (path,) = cut_cohort(cohort, root, SETTINGS, cache=tmp_path / "cache")
    return manifest, path


def test_every_region_of_every_usable_slide_has_a_row(cut, root):
    manifest = cut[0].rows
    assert list(manifest.columns) == list(COLUMNS)
    assert list(manifest.slide_id.unique()) == ["img_0000", "img_0001", "img_0003"]
    rows = manifest[manifest.slide_id == "img_0003"]
    _, mask = draw_slide(3)
    assert rows[["x", "y", "width", "height", "area"]].to_numpy().tolist() == mask_regions(mask).tolist()
    assert rows.patch_id.tolist() == ["img_0003-000", "img_0003-001", "img_0003-002"]
    assert set(rows.label) == {"a"}
    assert set(rows.fold) == {"fold1"}
    assert set(rows.group) == {"case-img_0003"}
    assert manifest.patch_id.is_unique


def test_a_region_that_is_left_out_keeps_its_row_and_gets_a_reason(cut):
    manifest = cut[0].rows
    dropped = manifest[manifest.outcome == DROPPED]
    assert dropped.slide_id.tolist() == ["img_0000", "img_0001", "img_0003"]
    assert set(dropped.reason) == {"small_region: 9 px, under 100 px"}
    assert set(manifest[manifest.outcome == KEPT].reason) == {""}


def test_the_figures_of_a_slide_are_those_of_the_answer_log(cut):
    manifest = cut[0]
    assert set(manifest.figures) == {"img_0000", "img_0001", "img_0003"}
    rgb, mask = draw_slide(3)
    assert manifest.figures["img_0003"] == pytest.approx(figures(rgb, mask, ReducedPicture.of(rgb)))


def test_the_mask_fraction_is_the_share_of_the_box(cut):
    manifest = cut[0].rows
    assert np.allclose(manifest.mask_fraction * manifest.width * manifest.height, manifest.area)
    assert manifest.mask_fraction.between(0, 1).all()


def test_the_pixels_are_the_cut_patches_row_for_row(cut, cohort, root, tmp_path):
    manifest, path = cut
    patches = load_patches(manifest, cache=tmp_path / "cache")
    assert path.parent == tmp_path / "cache" / "patches"
    assert np.array_equal(np.load(path), patches.pixels)
    assert patches.table.patch_id.tolist() == manifest.kept.patch_id.tolist()
    for row, patch in zip(patches.table.itertuples(), patches.pixels, strict=True):
        rgb = images.read_rgb(root / f"train_data/{row.slide_id}.png")
        region = np.array([[row.x, row.y, row.width, row.height, row.area]])
        assert np.array_equal(patch, cut_patches(rgb, region, SETTINGS)[0])


def test_a_repaired_slide_loses_its_splat_and_keeps_its_lesions(cut, cohort, root):
    kept = cut[0].kept
    rows = kept[kept.slide_id == "img_0001"]
    _, mask = draw_slide(1)
    lesions = [region for region in mask_regions(mask).tolist() if region[4] >= 100]
    assert rows[["x", "y", "width", "height", "area"]].to_numpy().tolist() == lesions
    slides = {row.slide_id: row for row in cohort.rows.itertuples()}
    assert np.array_equal(read_slide(root, slides["img_0001"])[1], mask)


def test_only_a_repaired_slide_is_searched_for_a_splat(cohort, root, tmp_path):
    cohort.rows.loc[cohort.rows.slide_id == "img_0001", "outcome"] = SLIDE_KEPT
    manifest, _ = cut_cohort(cohort, root, SETTINGS, cache=tmp_path / "cache")
    areas = manifest.rows[manifest.rows.slide_id == "img_0001"].area
    assert areas.max() > 2000  # the blob


def test_a_slide_of_specks_is_represented_by_its_largest(root, tmp_path):
    rgb, mask = draw_slide(0)
    mask[:] = False
    mask[10:13, 10:13] = mask[50:55, 50:55] = True
    table = table_of(root, [cohort_row(root, "img_0009", rgb, mask)])
    manifest, _ = cut_cohort(table, root, SETTINGS, cache=tmp_path / "cache")
    assert manifest.rows.outcome.tolist() == [DROPPED, KEPT]
    assert manifest.rows.reason[1].startswith("largest_region: ")


def test_whole_pictures_are_cut_once_per_slide(cohort, root, tmp_path):
    whole = PatchSettings(patching="whole", patch_size=32)
    manifest, (path,) = cut_cohort(cohort, root, whole, cache=tmp_path / "cache")
    assert manifest.rows[["x", "y", "width", "height"]].to_numpy().tolist() == [[0, 0, 160, 120]] * 3
    assert np.load(path).shape == (3, 32, 32, 3)


def test_progress_counts_usable_slides(cohort, root, tmp_path):
    calls = []
    cut_cohort(cohort, root, SETTINGS, cache=tmp_path / "cache", progress=lambda *counts: calls.append(counts))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_cutting_twice_gives_the_same_manifest_and_the_same_file(cut, cohort, root, tmp_path):
    again, (path,) = cut_cohort(cohort, root, SETTINGS, cache=tmp_path / "other")
    pd.testing.assert_frame_equal(again.rows, cut[0].rows)
    assert replace(again, rows=cut[0].rows) == cut[0]
    assert path.name == cut[1].name
    assert path.read_bytes() == cut[1].read_bytes()


@pytest.mark.parametrize("change", [{"margin": 1.0}, {"patch_size": 48}, {"min_area": 1}])
def test_other_settings_use_another_part(cut, cohort, root, tmp_path, change):
    other = SETTINGS.model_copy(update=change)
    _, (path,) = cut_cohort(cohort, root, other, cache=tmp_path / "cache")
    assert path != cut[1]
    assert cut[1].is_file()


def test_another_picture_under_the_same_name_uses_another_part(cut, cohort, root, tmp_path):
    rgb, mask = draw_slide(0)
    changed = table_of(root, [cohort_row(root, "img_0000", 255 - rgb, mask)]).rows
    other = replace(cohort, rows=pd.concat([changed, cohort.rows.iloc[1:]], ignore_index=True))
    _, (path,) = cut_cohort(other, root, SETTINGS, cache=tmp_path / "cache")
    assert path != cut[1]


def test_the_cache_is_rebuilt_bit_for_bit_from_the_manifest_and_the_slides(cut, tmp_path):
    manifest, path = cut
    manifest.write(tmp_path / "patches.parquet")
    before = path.read_bytes()
    path.unlink()
    patches = load_patches(Manifest.read(tmp_path / "patches.parquet"), cache=tmp_path / "cache")
    assert path.read_bytes() == before
    assert len(patches.pixels) == len(patches.table)
    assert list(path.parent.iterdir()) == [path]


def test_the_slides_may_have_moved(cut, root, tmp_path):
    manifest, path = cut
    before = np.load(path)
    root.rename(tmp_path / "elsewhere")
    rebuilt = load_patches(manifest, cache=tmp_path / "new" / "cache", data=str(tmp_path / "elsewhere"))
    assert np.array_equal(rebuilt.pixels, before)


def test_the_slides_are_not_needed_while_the_cache_is_there(cut, root, tmp_path):
    manifest, path = cut
    for picture in root.glob("train_data/*"):
        picture.unlink()
    assert np.array_equal(load_patches(manifest, cache=tmp_path / "cache").pixels, np.load(path))


def test_without_cache_and_slides_the_error_names_the_slide_and_the_remedy(cut, root, tmp_path):
    manifest, path = cut
    path.unlink()
    (root / "train_data/img_0003.png").unlink()
    with pytest.raises(CohortError, match=r"img_0003: .*img_0003\.png does not exist.*data=FOLDER"):
        load_patches(manifest, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_another_picture_under_the_old_name_is_not_cut_in_the_old_ones_place(cut, root, tmp_path):
    manifest, path = cut
    path.unlink()
    write_slide(root, "img_0003", draw_slide(7)[0], draw_slide(3)[1])  # scanned again, say
    with pytest.raises(CohortError, match=r"img_0003: .*img_0003\.png has changed since it was cut; run `patch` again"):
        load_patches(manifest, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.npy"))


@pytest.mark.parametrize("spoil", [lambda file: file[:-1], lambda file: b"\0" * 10 + file[10:]])
def test_a_damaged_part_is_named(cut, tmp_path, spoil):
    manifest, path = cut
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DoctogresError, match=f"{path}: damaged .*; delete the file and run again"):
        load_patches(manifest, cache=tmp_path / "cache")


def test_a_part_appears_only_when_it_is_whole(cohort, root, tmp_path):
    cache = tmp_path / "cache"
    seen: list[str] = []
    _, (path,) = cut_cohort(
        cohort,
        root,
        SETTINGS,
        cache=cache,
        progress=lambda *_: seen.extend(entry.suffix for entry in cache.glob("*/*")),
    )
    assert seen
    assert ".npy" not in seen
    assert list(cache.glob("*/*")) == [path]


def test_a_damaged_slide_stops_the_cut_and_leaves_no_unfinished_part(cohort, root, tmp_path):
    picture = root / "train_data/img_0003.png"
    picture.write_bytes(picture.read_bytes()[:-40])
    with pytest.raises(CohortError, match=r"train_data/img_0003\.png is truncated.*is not the one that was cleaned"):
        cut_cohort(cohort, root, SETTINGS, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_mask_of_another_size_names_the_slide(cohort, root, tmp_path):
    write_slide(root, "img_0000", draw_slide(0)[0], np.ones((60, 80), bool))
    problem = r"train_data/mask_0000\.png has 80 x 60 pixels, train_data/img_0000\.png 160 x 120; give the mask"
    with pytest.raises(SizeMismatchError, match=problem):
        cut_cohort(cohort, root, SETTINGS, cache=tmp_path / "cache")


def test_empty_masks_are_an_error_and_leave_nothing(root, tmp_path):
    rgb, mask = draw_slide(0)
    table = table_of(root, [cohort_row(root, "img_0000", rgb, mask & False)])
    with pytest.raises(CohortError, match="no slide has any region left"):
        cut_cohort(table, root, SETTINGS, cache=tmp_path / "cache")
    assert not list(tmp_path.rglob("*.npy"))


def test_a_disk_too_small_for_the_pixels_is_named_before_a_slide_is_read(cut, cohort, root, tmp_path, monkeypatch):
    manifest, _ = cut
    size = len(manifest.kept) * 32 * 32 * 3
    with small_disk(tmp_path / "disk", kilobytes=8) as disk, monkeypatch.context() as patcher:
        for module in (cutting, pixels):
            patcher.setattr(module, "map_slides", lambda *arguments: pytest.fail("work was begun"))
        with pytest.raises(DiskFullError, match=f"^{disk.path}/cache: .* {size_text(size)} needed, 4.1 kB free"):
            load_patches(manifest, cache=disk.path / "cache")
        with pytest.raises(DiskFullError, match=f"^{disk.path}/cache: .* {size_text(3 * 32 * 32 * 3)} needed"):
            cut_cohort(cohort, root, SETTINGS, cache=disk.path / "cache")
