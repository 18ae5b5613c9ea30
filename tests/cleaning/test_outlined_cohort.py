"""A cohort whose masks are outlines is cleaned and cut as one whose masks are pictures."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from doctogres.cleaning.cohort import clean_cohort
from doctogres.patches.cutting import cut_cohort
from doctogres.presets import load_preset
from doctogres.serving.contract import RequestedSlide
from doctogres.slides.cohort import find_slides
from doctogres.slides.geojson import Outline, write_outlines
from doctogres.slides.masks import read_mask
from doctogres.slides.outlines import region_shape
from doctogres.slides.table import CohortTable


@pytest.fixture(scope="module")
def outlined(small_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small cohort with a GeoJSON file of two classes for every mask."""
    root = tmp_path_factory.mktemp("outlined") / "cohort"
    shutil.copytree(small_cohort, root)
    for path in (root / "train_data").glob("mask_*.png"):
        lesion = read_mask(path)
        outlines = [Outline(region_shape(lesion), classification="Tumor")] if lesion.any() else []
        outlines.append(Outline(region_shape(~lesion), classification="Other"))
        path.with_suffix(".geojson").write_text(write_outlines(outlines))
        path.unlink()
    return root


def test_outlines_and_masks_make_the_same_patches(small_cohort: Path, outlined: Path, tmp_path: Path) -> None:
    preset = load_preset("demo", {})
    tables, patches = [], []
    for root, annotations in ((small_cohort, ""), (outlined, "Tumor")):
        slides = find_slides(root, annotations=annotations)
        table = clean_cohort(root, preset.clean, seed=1, slides=slides).table
        manifest, _ = cut_cohort(CohortTable(table, root, ""), root, preset.patch, cache=tmp_path / root.name)
        tables.append(table)
        patches.append(manifest.rows.drop(columns=["patch_id"]))
    compared = ["slide_id", "label", "group", "width", "height", "outcome", "fold", "twin_of"]
    pd.testing.assert_frame_equal(tables[0][compared], tables[1][compared])
    pd.testing.assert_frame_equal(patches[0], patches[1])
    assert set(tables[1]["annotations"]) == {"Tumor"}


def test_without_a_choice_two_classes_are_a_reason(outlined: Path) -> None:
    with pytest.raises(Exception, match=r"mask_outlines: .*several classes \(Other, Tumor\)"):
        clean_cohort(outlined, load_preset("demo", {}).clean, seed=1)


def test_a_request_reads_the_same_lesions(small_cohort: Path, outlined: Path) -> None:
    image = (small_cohort / "train_data" / "img_0000.png").read_bytes()
    masks = [
        folder / "train_data" / f"mask_0000{suffix}"
        for folder, suffix in ((small_cohort, ".png"), (outlined, ".geojson"))
    ]
    drawn, outlines = (RequestedSlide("s", image, mask.read_bytes(), annotations="Tumor").read()[1] for mask in masks)
    assert drawn is not None
    assert outlines is not None
    assert (drawn == outlines).all()
