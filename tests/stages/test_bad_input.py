"""A cohort with every kind of bad input: each slide is named with its reason, and the rest goes on."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from doctogres.errors import CohortError
from doctogres.presets import load_preset
from doctogres.slides.reasons import Reason
from doctogres.slides.table import DROPPED, CohortTable
from doctogres.stages.clean import clean
from doctogres.stages.patch import patch
from doctogres.tracking.runs import PROBLEMS, finished_runs
from doctogres.tracking.upstream import find_artifact


@pytest.fixture
def broken_cohort(small_cohort: Path, tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the cohort with one slide spoiled in each way, and the reason expected for each."""
    root = tmp_path / "broken"
    shutil.copytree(small_cohort, root)
    labels = pd.read_csv(root / "train_labels.csv", dtype=str)
    spoiled = set(pd.read_csv(root / "contaminated.csv")[["sample_index", "twin"]].to_numpy().ravel())
    genuine = labels[~labels["sample_index"].isin(spoiled)]
    largest = genuine["label"].value_counts().index[:2]
    free = [name for label in largest for name in genuine.loc[genuine["label"] == label, "sample_index"].head(3)]
    names = [Path(name).stem for name in free[:5]]
    train = root / "train_data"
    mask = [train / name.replace("img", "mask") for name in (f"{stem}.png" for stem in names)]
    mask[0].unlink()
    cv2.imwrite(str(mask[1]), np.full((8, 8), 255, np.uint8))
    picture = train / f"{names[2]}.png"
    picture.write_bytes(picture.read_bytes()[:2000])
    cv2.imwrite(str(mask[3]), np.zeros_like(cv2.imread(str(mask[3]), 0)))
    labels = labels[labels["sample_index"] != f"{names[4]}.png"]
    extra = pd.DataFrame({"sample_index": ["img_9000.png", "img_9001.png"], "label": ["Luminal A", "Lonely"]})
    for part in ("img", "mask"):
        shutil.copy(train / f"{part}_{free[-1][4:]}", train / f"{part}_9001.png")
    for path in (train / "img_9001.png", train / "mask_9001.png"):
        turned = cv2.flip(np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)), 1)
        cv2.imwrite(str(path), turned)
    pd.concat([labels, extra]).to_csv(root / "train_labels.csv", index=False)
    codes = ("missing_mask", "size_mismatch", "unreadable_image", "empty_mask", "unlabelled")
    expected = dict(zip(names, codes, strict=True))
    return root, expected | {"img_9000": "missing_image", "img_9001": "rare_class"}


def test_every_bad_slide_has_its_reason_and_the_stage_finishes(
    store: Path, broken_cohort: tuple[Path, dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    root, expected = broken_cohort
    before = {path: path.read_bytes() for path in sorted(root.rglob("*.png"))}
    preset = load_preset("demo")
    result = clean(data=str(root), preset=preset, seed=1)
    table = CohortTable.read(find_artifact(result.run_id, stage="clean", name="cohort").path).rows
    rows = table.set_index("slide_id")
    for slide, code in expected.items():
        assert (rows["outcome"][slide], Reason.of(rows["reason"][slide])) == (DROPPED, code)
        assert len(rows["reason"][slide]) > len(code) + 10
    assert result.metrics[PROBLEMS] == len(expected)
    printed = capsys.readouterr().out
    assert all(slide in printed for slide in expected)
    assert len(table) == len(table["slide_id"].unique())
    assert {path: path.read_bytes() for path in sorted(root.rglob("*.png"))} == before, "the input was changed"
    manifest = pd.read_parquet(
        find_artifact(patch(cohort=result.run_id, preset=preset).run_id, stage="patch", name="patches").path
    )
    assert not set(expected) & set(manifest["slide_id"])


def test_strict_refuses_them(store: Path, broken_cohort: tuple[Path, dict[str, str]]) -> None:
    root, expected = broken_cohort
    with pytest.raises(CohortError, match=f"{len(expected)} slides could not be used"):
        clean(data=str(root), preset=load_preset("demo"), seed=1, strict=True)
    assert finished_runs("clean") == []


def test_contaminated_slides_are_no_bad_input(store: Path, small_cohort: Path) -> None:
    result = clean(data=str(small_cohort), preset=load_preset("demo"), seed=1, strict=True)
    assert result.metrics[PROBLEMS] == 0
    truth = pd.read_csv(small_cohort / "contaminated.csv")
    table = CohortTable.read(find_artifact(result.run_id, stage="clean", name="cohort").path).rows
    dropped = set(table.loc[table["outcome"] == DROPPED, "slide_id"])
    assert dropped == {Path(name).stem for name in truth["sample_index"]}


@pytest.mark.parametrize("content", [{}, {"notes.txt": "hello"}, {"train_labels.csv": "sample_index,label\n"}])
def test_a_folder_that_is_not_a_cohort_is_named(store: Path, tmp_path: Path, content: dict[str, str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, text in content.items():
        (folder / name).write_text(text)
    with pytest.raises(CohortError, match="folder"):
        clean(data=str(folder), preset=load_preset("demo"), seed=1)
