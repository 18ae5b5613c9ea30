"""A cohort with every kind of bad input: each slide is named with its reason, and the rest goes on."""

import shutil
from pathlib import Path

import cv2
import mlflow
import numpy as np
import pandas as pd
import pytest

from doctogres.errors import CohortError
from doctogres.presets import load_preset
from doctogres.slides.reasons import Reason
from doctogres.slides.table import DROPPED, CohortTable
from doctogres.stages.clean import clean
from doctogres.stages.main import run_all
from doctogres.stages.patch import patch
from doctogres.tracking.runs import PROBLEMS, finished_runs
from doctogres.tracking.upstream import find_artifact
from tests.cleaning.drawn_slides import draw_tissue, write_slide


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


def write_cohort(root: Path, *lines: str, slides: int = 8) -> Path:
    """A cohort of drawn slides with the lines of its table of labels."""
    (root / "train_data").mkdir(parents=True)
    for slide in range(slides):
        write_slide(root, f"img_{slide:04}", *draw_tissue(slide, size=(192, 256)))
    (root / "train_labels.csv").write_text("".join(f"{line}\n" for line in lines))
    return root


def test_a_cohort_with_nothing_left_names_the_first_slide_of_every_reason_and_leaves_the_audit(
    store: Path, tmp_path: Path
) -> None:
    lines = [f"img_{slide:04}.png,nan" for slide in range(6)]
    root = write_cohort(tmp_path / "cohort", "sample_index,label", *lines)
    (root / "train_data/mask_0007.png").unlink()
    with pytest.raises(CohortError) as refusal:
        clean(data=str(root), preset=load_preset("demo"), seed=1)
    message = str(refusal.value)
    assert "7 unlabelled: img_0000, img_0001, img_0002, ... (the first: img_0000 has the label 'nan'" in message
    assert "1 missing_mask: img_0007 (train_data/mask_0007.png does not exist; add the mask" in message
    assert "\n" not in message
    assert finished_runs("clean") == []
    run = mlflow.search_runs(search_all_experiments=True, output_format="list")[0]
    assert run.info.run_id in message
    page = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="audit.html")).read_text(
        "utf-8"
    )
    assert all(f"img_{slide:04}" in page for slide in range(8))
    table = pd.read_csv(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="decisions.csv"))
    assert len(table) == 8


def test_main_refuses_an_unusable_test_part_before_it_trains(store: Path, small_cohort: Path, tmp_path: Path) -> None:
    root = tmp_path / "cohort"
    shutil.copytree(small_cohort, root)
    for table, said in (
        ("image,mask\n1.png,2.png,3.png\n", "test_labels.csv, line 2"),
        ("sample_index,group\nimg_0000,p,q\n", "test_labels.csv, line 2"),
        ("", "test_data holds no pictures with masks"),
    ):
        (root / "test_labels.csv").write_text(table)
        if not table:
            shutil.rmtree(root / "test_data")
            (root / "test_data").mkdir()
        with pytest.raises(CohortError, match=said):
            run_all(data=str(root), preset=load_preset("demo"), seed=1)
    assert finished_runs("clean") == []


def test_a_reason_is_printed_once_and_a_confirmed_column_is_another_run(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"img_{slide:04}.png,{'ab'[slide % 2]},{slide // 2}" for slide in range(8)]
    lines += [f"img_{slide:04}.png,a,9" for slide in range(100, 105)]
    root = write_cohort(tmp_path / "cohort", "sample_index,label,patient", *lines)
    preset = load_preset("demo")
    with pytest.raises(CohortError, match=r"'patient'.*'0': img_0000, img_0001.*ignore_columns=patient"):
        clean(data=str(root), preset=preset, seed=1)
    ungrouped = clean(data=str(root), preset=preset, seed=1, ignore_columns="patient, ")
    said = [line for line in capsys.readouterr().out.splitlines() if "missing_image" in line]
    assert len(said) == 1
    assert "5 missing_image: img_0100, img_0101, img_0102, ..." in said[0]
    assert clean(data=str(root), preset=preset, seed=1, ignore_columns=" patient").reused
    text = (root / "train_labels.csv").read_text()
    (root / "train_labels.csv").write_text(text.replace("patient", "site"))
    with pytest.raises(CohortError, match="ignore_columns=patient: train_labels.csv has no such column"):
        clean(data=str(root), preset=preset, seed=1, ignore_columns="patient")
    (root / "train_labels.csv").write_text(text.replace("patient", "Group"))
    grouped = clean(data=str(root), preset=preset, seed=1)
    assert grouped.run_id != ungrouped.run_id
    table = CohortTable.read(find_artifact(grouped.run_id, stage="clean", name="cohort").path)
    assert table.usable.groupby("group")["fold"].nunique().max() == 1
    assert table.usable["group"].nunique() == 4


@pytest.mark.parametrize("content", [{}, {"notes.txt": "hello"}, {"train_labels.csv": "sample_index,label\n"}])
def test_a_folder_that_is_not_a_cohort_is_named(store: Path, tmp_path: Path, content: dict[str, str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, text in content.items():
        (folder / name).write_text(text)
    with pytest.raises(CohortError, match="folder"):
        clean(data=str(folder), preset=load_preset("demo"), seed=1)
