"""A cohort of pyramids is cleaned and cut as the same cohort of plain pictures."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from doctogres.cleaning.cohort import clean_cohort
from doctogres.errors import CohortError
from doctogres.patches.cutting import cut_cohort
from doctogres.patches.manifest import Manifest
from doctogres.patches.pixels import load_patches
from doctogres.settings import CleanSettings, PatchSettings
from doctogres.slides import levels, pyramid
from doctogres.slides.images import encode_png
from doctogres.slides.table import CohortTable
from tests.cleaning.drawn_slides import draw_cartoon, draw_splat, draw_tissue
from tests.slides.pyramids import write_pyramid, write_svs

SETTINGS = PatchSettings(patching="regions,window96,tiles64,whole", patch_size=64, min_area=60)
SIZE = (768, 1024)  # high, wide


@pytest.fixture(scope="module")
def drawn() -> dict[str, tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]]:
    """Ten slides and a cartoon with the mask of another, a splat, and a copy of another slide."""
    slides = {f"img_{number:04}": draw_tissue(number, size=SIZE) for number in range(10)}
    slides["img_0010"] = draw_cartoon(slides["img_0000"][0]), slides["img_0000"][1]
    slides["img_0011"] = draw_splat(*draw_tissue(11, size=SIZE), centre=(700, 300), radius=90)
    copied, mask = slides["img_0003"]
    slides["img_0012"] = np.ascontiguousarray(copied[::-1]), np.ascontiguousarray(mask[::-1])
    return slides


def cohort(root: Path, drawn, kind: str, reduced: int = 1) -> Path:
    (root / "train_data").mkdir(parents=True)
    for slide, (rgb, mask) in drawn.items():
        path = root / f"train_data/{slide}.png"
        if kind == "png":
            path.write_bytes(encode_png(rgb))
        elif kind == "svs":
            write_svs(path.with_suffix(".svs"), rgb, quality=97)
        else:
            write_pyramid(path.with_suffix(".tif"), rgb, compression=kind)
        smaller = cv2.resize(mask.view(np.uint8), None, fx=1 / reduced, fy=1 / reduced, interpolation=cv2.INTER_NEAREST)
        (root / f"train_data/{slide.replace('img', 'mask')}.png").write_bytes(encode_png(smaller.astype(bool)))
    rows = [f"{slide},{'ab'[int(slide[-1]) % 2]}" for slide in drawn]
    (root / "train_labels.csv").write_text("\n".join(["sample_index,label", *rows]))
    return root


def cut(root: Path) -> tuple[pd.DataFrame, Manifest, dict[str, npt.NDArray[np.uint8]]]:
    result = clean_cohort(root, CleanSettings(holdout=0.3, folds=2), seed=7)
    manifest, _ = cut_cohort(CohortTable(result.table, root, ""), root, SETTINGS, cache=root / "cache")
    pixels = {view: np.array(load_patches(manifest, cache=root / "cache", view=view).pixels) for view in SETTINGS.views}
    return result.table.set_index("slide_id"), manifest, pixels


@pytest.fixture(scope="module")
def plain(tmp_path_factory, drawn):
    return cut(cohort(tmp_path_factory.mktemp("plain"), drawn, "png"))


@pytest.fixture
def regions_only(monkeypatch):
    """All tiled pictures count as pyramids, and parts of more pixels than a window are read from reduced copies."""
    monkeypatch.setattr(levels, "DECODED_PIXELS", 1000)
    monkeypatch.setattr(pyramid, "WORKING_SIDE", 4096)
    monkeypatch.setattr("doctogres.slides.masks.read_rgb", None)  # no slide is decoded


@pytest.mark.parametrize("kind", ["lzw", "svs"])
def test_pyramids_are_cleaned_and_cut_as_pictures(tmp_path, drawn, plain, regions_only, kind):
    table, manifest, pixels = cut(cohort(tmp_path / "cohort", drawn, kind))
    expected, of_pictures, expected_pixels = plain
    same = ["label", "width", "height", "mask_md5", "twin_of", "outcome", "fold"]
    pd.testing.assert_frame_equal(table[same], expected[same])
    assert {"cartoon_twin", "slime"} <= {str(reason).partition(":")[0] for reason in expected["reason"]}
    pd.testing.assert_frame_equal(manifest.rows, of_pictures.rows)
    for view, cut_pixels in pixels.items():
        difference = np.abs(cut_pixels.astype(int) - expected_pixels[view])
        assert difference.max() == 0 if kind == "lzw" else difference.mean() < 3
    if kind == "lzw":
        assert manifest.figures == of_pictures.figures
        assert table["reason"].tolist() == expected["reason"].tolist()


def test_a_mask_of_a_quarter_gives_the_same_regions(tmp_path, drawn, plain, regions_only):
    table, manifest, _ = cut(cohort(tmp_path / "cohort", drawn, "lzw", reduced=4))
    assert (table["outcome"] == plain[0]["outcome"]).all()
    fields, alike = ["x", "y", "width", "height"], 0
    expected = plain[1].kept_of("regions")
    for slide, own in manifest.kept_of("regions").groupby("slide_id"):
        of_slide = expected[expected["slide_id"] == slide]
        assert own["area"].sum() == pytest.approx(of_slide["area"].sum(), rel=0.1)
        if len(own) == len(of_slide):  # no two regions touch in the smaller mask
            near = own.sort_values("x")[fields].to_numpy() - of_slide.sort_values("x")[fields].to_numpy()
            assert np.abs(near).max() <= 8
            alike += 1
    assert alike >= 5
    windows = manifest.kept_of("window96")
    assert (windows[["width", "height"]] == 96).all(axis=None)
    assert ((windows["x"] + 96 <= SIZE[1]) & (windows["y"] + 96 <= SIZE[0])).all()
    assert len(windows) == pytest.approx(len(plain[1].kept_of("window96")), abs=6)


def test_the_pixels_of_pyramids_are_cut_again(tmp_path, drawn, regions_only):
    root = cohort(tmp_path / "cohort", drawn, "lzw")
    _, manifest, pixels = cut(root)
    for file in (root / "cache").glob("*/*"):
        file.unlink()
    again = load_patches(manifest, cache=root / "cache", view="window96").pixels
    assert np.array_equal(again, pixels["window96"])
    path = root / "train_data/img_0001.tif"
    write_pyramid(path, drawn["img_0002"][0])
    for file in (root / "cache").glob("*/*"):
        file.unlink()
    with pytest.raises(Exception, match="img_0001: .* has changed since it was cut"):
        load_patches(manifest, cache=root / "cache", view="window96")


def test_a_damaged_pyramid_is_a_row_with_a_reason(tmp_path, drawn, regions_only):
    root = cohort(tmp_path / "cohort", drawn, "svs")
    path = root / "train_data/img_0002.svs"
    path.write_bytes(path.read_bytes()[:-40_000])
    table = clean_cohort(root, CleanSettings(holdout=0.3, folds=2), seed=7).table.set_index("slide_id")
    assert str(table.loc["img_0002", "reason"]).startswith(
        "unreadable_image: train_data/img_0002.svs is truncated or damaged"
    )
    assert (table["outcome"] == "kept").sum() >= 8


def with_mpp(drawn, root: Path, mpp: float = 0.25) -> Path:
    """Pyramids of this mpp, of which the table states another of two."""
    (root / "train_data").mkdir(parents=True)
    for slide, (rgb, mask) in drawn.items():
        write_pyramid(root / f"train_data/{slide}.tif", rgb, mpp=0 if slide == "img_0004" else mpp)
        (root / f"train_data/{slide.replace('img', 'mask')}.png").write_bytes(encode_png(mask))
    rows = [f"{slide},{'ab'[int(slide[-1]) % 2]},{0.5 if slide == 'img_0001' else ''}" for slide in drawn]
    (root / "train_labels.csv").write_text("\n".join(["sample_index,label,mpp", *rows]))
    return root


def test_windows_are_cut_at_the_target(tmp_path, drawn, regions_only):
    root = with_mpp(drawn, tmp_path / "cohort")
    clean = CleanSettings(holdout=0.3, folds=2)
    result = clean_cohort(root, clean, seed=7)
    known = result.table.set_index("slide_id")["mpp"]
    assert known[["img_0000", "img_0001"]].tolist() == [0.25, 0.5]  # the file's, and the table's in place of the file's
    assert np.isnan(known["img_0004"])
    settings = SETTINGS.model_copy(update={"patching": "window96", "target_mpp": 0.5})
    with pytest.raises(
        CohortError, match=r"target_mpp=0.5, but the microns per pixel of 1 slides are not known \(img_0004\)"
    ):
        cut_cohort(CohortTable(result.table, root, ""), root, settings, cache=root / "cache")
    stated = clean_cohort(root, clean.model_copy(update={"mpp": 1.0}), seed=7).table
    assert stated.set_index("slide_id")["mpp"][["img_0000", "img_0004"]].tolist() == [0.25, 1.0]
    manifest, _ = cut_cohort(CohortTable(stated, root, ""), root, settings, cache=root / "cache")
    sides = manifest.kept.groupby("slide_id")["width"].agg(set)
    assert [sides[slide] for slide in ("img_0000", "img_0001", "img_0004")] == [{192}, {96}, {48}]
    assert manifest.unit("img_0000") == 2
    pixels = np.array(load_patches(manifest, cache=root / "cache").pixels)
    for file in (root / "cache").glob("*/*"):
        file.unlink()
    manifest.write(tmp_path / "patches.parquet")
    again = Manifest.read(tmp_path / "patches.parquet")
    assert np.array_equal(load_patches(again, cache=root / "cache").pixels, pixels)
    assert again.trained_mpp(["img_0000"]) == 0.5
    as_it_is = replace(again, patch=SETTINGS)
    assert as_it_is.trained_mpp(["img_0000", "img_0002", "img_0001"]) == 0.25
    assert replace(as_it_is, mpp={"img_0000": 0.25}).trained_mpp(["img_0000", "img_0002"]) is None
