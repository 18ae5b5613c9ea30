"""The demo cohort: planted truth, equal bytes for equal seeds, and nobody else's folder touched."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctogres.synthetic import LABELS, CohortSummary, make_cohort, plan_cohort

SLIDES = 12


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_pixels(path: Path) -> np.ndarray[Any, Any]:
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert pixels is not None, path
    return np.asarray(pixels)


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def mask_of(image: Path) -> Path:
    return image.with_name(image.name.replace("img_", "mask_"))


@pytest.fixture(scope="module")
def summary(tmp_path_factory: pytest.TempPathFactory) -> CohortSummary:
    return make_cohort(tmp_path_factory.mktemp("cohort") / "demo", slides=SLIDES, seed=3, workers=1)


@pytest.fixture(scope="module")
def spoiled(summary: CohortSummary) -> dict[str, tuple[Path, Path]]:
    """Per kind: a spoiled picture and the genuine one it copies."""
    folder = summary.folder / "train_data"
    table = read_table(summary.folder / "contaminated.csv")
    return {row["kind"]: (folder / row["sample_index"], folder / row["twin"]) for row in table}


# --- the plan -------------------------------------------------------------------------------------------------------


def test_big_plan_has_the_challenge_s_proportions() -> None:
    plan = plan_cohort(1000, seed=5)
    train = [slide for slide in plan if slide.split == "train"]
    kinds = Counter(slide.kind for slide in train)
    labels = Counter(slide.label for slide in train if slide.kind == "genuine")

    assert len(train) == 800
    assert kinds["shrek"] / 800 == pytest.approx(0.087, abs=0.002)
    assert kinds["slime"] / 800 == pytest.approx(0.072, abs=0.002)
    for label, count in {"Luminal A": 158, "Luminal B": 204, "HER2(+)": 150, "Triple negative": 69}.items():
        assert labels[label] / labels.total() == pytest.approx(count / 581, abs=0.002)


def test_half_of_the_cartoons_come_before_their_twin_and_some_carry_another_label() -> None:
    plan = plan_cohort(1000, seed=5)
    by_name = {slide.image_name: slide for slide in plan if slide.split == "train"}
    cartoons = [slide for slide in plan if slide.kind == "shrek"]

    first = sum(slide.number < by_name[slide.twin].number for slide in cartoons)

    assert abs(first - len(cartoons) / 2) <= 0.5
    assert 0 < sum(slide.label == by_name[slide.twin].label for slide in cartoons) < len(cartoons)


def test_file_numbers_tell_nothing_about_class_or_contamination() -> None:
    train = [slide for slide in plan_cohort(1000, seed=5) if slide.split == "train"]
    half = len(train) // 2
    for chosen in (lambda s: s.kind == "slime", *(lambda s, name=name: s.label == name for name in LABELS)):
        low, high = (sum(map(chosen, part)) for part in (train[:half], train[half:]))
        assert abs(low - high) < 4 * np.sqrt(low + high)


@given(slides=st.integers(12, 300), seed=st.integers(0, 2**32))
def test_every_plan_is_complete(slides: int, seed: int) -> None:
    plan = plan_cohort(slides, seed)
    train = [slide for slide in plan if slide.split == "train"]
    test = [slide for slide in plan if slide.split == "test"]
    genuine = {slide.image_name: slide for slide in train if slide.kind == "genuine"}
    copies = [slide for slide in train if slide.kind != "genuine"]

    assert len(plan) == slides
    assert [slide.number for slide in train] == list(range(len(train)))
    assert [slide.number for slide in test] == list(range(len(test)))
    assert all(slide.kind == "genuine" for slide in test)
    assert {slide.kind for slide in copies} == {"shrek", "slime"}
    assert min(Counter(slide.label for slide in genuine.values())[label] for label in LABELS) >= 2
    assert all(genuine[slide.twin].source == slide.source for slide in copies)
    assert all(genuine[slide.twin].label == slide.label for slide in copies if slide.kind == "slime")


def test_too_small_a_cohort_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 12"):
        plan_cohort(11, seed=7)


# --- the files ------------------------------------------------------------------------------------------------------


def test_same_seed_gives_the_same_bytes_with_one_worker_and_two(summary: CohortSummary, tmp_path: Path) -> None:
    again = make_cohort(tmp_path / "again", slides=SLIDES, seed=3, workers=2)
    assert all_bytes(again.folder) == all_bytes(summary.folder)


@pytest.mark.slow
def test_another_seed_replaces_the_cohort_and_differs(summary: CohortSummary, tmp_path: Path) -> None:
    shutil.copytree(summary.folder, tmp_path / "demo")
    first = all_bytes(tmp_path / "demo")
    second = all_bytes(make_cohort(tmp_path / "demo", slides=SLIDES, seed=4, workers=1).folder)

    assert first.keys() == second.keys()
    assert all(first[name] != second[name] for name in first if "img_" in name)
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_layout_and_tables(summary: CohortSummary) -> None:
    folder = summary.folder
    assert {path.name for path in folder.iterdir()} == {
        "train_data", "test_data", "train_labels.csv", "test_labels.csv", "contaminated.csv", "cohort.json",
    }  # fmt: skip
    for split, count in (("train", summary.train), ("test", summary.test)):
        rows = read_table(folder / f"{split}_labels.csv")
        assert list(rows[0]) == ["sample_index", "label"]
        assert [row["sample_index"] for row in rows] == [f"img_{n:04d}.png" for n in range(count)]
        assert {row["label"] for row in rows} <= set(LABELS)
        files = {path.name for path in (folder / f"{split}_data").iterdir()}
        assert files == {f"{kind}_{n:04d}.png" for kind in ("img", "mask") for n in range(count)}
    contaminated = read_table(folder / "contaminated.csv")
    assert list(contaminated[0]) == ["sample_index", "kind", "twin"]
    assert Counter(row["kind"] for row in contaminated) == {"shrek": summary.cartoons, "slime": summary.splats}
    assert sum(summary.labels.values()) == summary.train - summary.cartoons - summary.splats


def test_masks_fit_their_pictures_and_show_lesions_and_specks(summary: CohortSummary) -> None:
    table = read_table(summary.folder / "contaminated.csv")
    slimy = {row["sample_index"] for row in table if row["kind"] == "slime"}
    for image in sorted((summary.folder / "train_data").glob("img_*.png")):
        picture, mask = read_pixels(image), read_pixels(mask_of(image))
        assert picture.shape == (*mask.shape, 3)
        assert 480 <= min(mask.shape) <= 540
        assert 640 <= max(mask.shape) <= 1400
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) == {0, 255}
        areas = cv2.connectedComponentsWithStats(mask)[2][1:, cv2.CC_STAT_AREA]
        if image.name not in slimy:
            assert 4 <= np.count_nonzero(areas >= 200) <= 12
            assert 1 <= np.count_nonzero(areas < 200) <= 8
            assert 0.005 <= np.mean(mask > 0) <= 0.065


def test_cartoon_keeps_the_mask_and_the_glass_and_loses_the_tissue(spoiled: dict[str, tuple[Path, Path]]) -> None:
    cartoon, twin = spoiled["shrek"]
    drawn, genuine = read_pixels(cartoon).astype(int), read_pixels(twin).astype(int)
    changed = (drawn != genuine).any(axis=2)
    pink = (genuine[..., 2] - genuine[..., 1]) > 25  # BGR: eosin takes green, glass is grey

    assert mask_of(cartoon).read_bytes() == mask_of(twin).read_bytes()
    assert changed[pink].mean() > 0.98
    assert 0.1 < changed.mean() < 0.8
    assert np.mean(drawn[changed][:, 1] > drawn[changed][:, 0]) > 0.8


def test_splat_is_green_saturated_of_the_right_size_and_in_the_mask(spoiled: dict[str, tuple[Path, Path]]) -> None:
    slime, twin = spoiled["slime"]
    drawn, genuine = read_pixels(slime), read_pixels(twin)
    mask, own = read_pixels(mask_of(slime)) > 0, read_pixels(mask_of(twin)) > 0
    splat = (drawn != genuine).any(axis=2)
    hue, saturation, _ = cv2.split(cv2.cvtColor(drawn, cv2.COLOR_BGR2HSV))
    green = (np.asarray(hue) >= 35) & (np.asarray(hue) <= 85) & (np.asarray(saturation) > 100)

    assert 0.02 < splat.mean() < 0.055
    assert green[splat].mean() > 0.95
    np.testing.assert_array_equal(mask, own | splat)


def test_a_folder_of_somebody_else_s_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "precious.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match=r"slides exists.*name another folder"):
        make_cohort(tmp_path / "slides", slides=12, workers=1)
    assert all_bytes(tmp_path) == {"slides/precious.txt": b"mine"}


def test_a_run_that_fails_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the lamp went out")

    monkeypatch.setattr("doctogres.synthetic.cohort.draw_slide", fail)
    with pytest.raises(RuntimeError, match="lamp"):
        make_cohort(tmp_path / "demo", slides=12, workers=1)
    assert list(tmp_path.iterdir()) == []
