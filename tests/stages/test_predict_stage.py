"""predict: what becomes of slides that cannot be used."""

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from doctogres.errors import CohortError
from doctogres.evaluation.predictions import PATCHES, PREDICTED, Predictions
from doctogres.evaluation.unlabelled import ANSWERED, GUESSED
from doctogres.model.card import TrainingRecord
from doctogres.model.classifier import SlideClassifier, make_classifier
from doctogres.model.ensemble import Ensemble
from doctogres.model.network import create_network
from doctogres.model.temperature import Calibration
from doctogres.presets import load_preset
from doctogres.settings import AnswerSettings, PatchSettings
from doctogres.slides.images import encode_png, read_rgb
from doctogres.slides.reasons import Reason
from doctogres.stages.predict import predict
from doctogres.tracking.runs import PROBLEMS, StageResult

CLASSES = ("slide_id", "label")


@pytest.fixture
def classifier() -> SlideClassifier:
    torch.manual_seed(0)
    return make_classifier(
        Ensemble([create_network("test_resnet", classes=2, size=64)]),
        backbone="test_resnet",
        classes=CLASSES,
        class_shares={"slide_id": 0.3, "label": 0.7},
        patch=PatchSettings(patch_size=64),
        answer=AnswerSettings(),
        region_side=40,
        calibration=Calibration.none(0.9),
        seen=TrainingRecord(),
        evidence={},
    )


@pytest.fixture
def slides(small_cohort: Path, tmp_path: Path) -> Path:
    """Five test slides: a good one, and one without a mask, cut off, with a grey mask, with an empty mask."""
    folder = tmp_path / "slides"
    folder.mkdir()
    for picture in sorted((small_cohort / "test_data").glob("img_*.png"))[:5]:
        for file in (picture, picture.with_name(picture.name.replace("img", "mask"))):
            shutil.copy(file, folder)
    _, missing, cut_off, grey, empty = sorted(folder.glob("mask_*.png"))
    missing.unlink()
    picture = folder / cut_off.name.replace("mask", "img")
    picture.write_bytes(picture.read_bytes()[:-40])
    height, width = read_rgb(grey.with_name(grey.name.replace("mask", "img"))).shape[:2]
    grey.write_bytes(encode_png((np.arange(height * width) % 256).astype(np.uint8).reshape(height, width)))
    empty.write_bytes(encode_png(np.zeros((16, 16), bool)))
    (folder / empty.name.replace("mask", "img")).write_bytes(encode_png(np.full((16, 16, 3), 200, np.uint8)))
    return folder


@pytest.fixture
def result(store: Path, slides: Path, classifier: SlideClassifier, monkeypatch: pytest.MonkeyPatch) -> StageResult:
    monkeypatch.setattr("doctogres.serving.loading.load_classifier", lambda address: classifier)
    return predict(data=str(slides), model="models:/m-made-here", preset=load_preset("demo"))


def local(uri: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))


def test_every_slide_has_a_row_and_what_cannot_be_used_its_reason_and_a_guess(result: StageResult) -> None:
    predictions = Predictions.read(PREDICTED, local(result.artifacts["predictions"]))
    rows = predictions.rows
    assert rows["outcome"].tolist() == [ANSWERED, GUESSED, GUESSED, GUESSED, GUESSED]
    expected = [Reason.MISSING_MASK, Reason.UNREADABLE_IMAGE, Reason.MASK_VALUES, Reason.EMPTY_MASK]
    assert [Reason.of(reason) for reason in rows["reason"][1:]] == expected
    assert rows["label"].tolist()[1:] == ["label"] * 4  # the most frequent class of the training part
    assert predictions.classes == CLASSES
    np.testing.assert_array_equal(predictions.probabilities[1:], [[0.3, 0.7]] * 4)
    assert rows["confidence"][0] == predictions.probabilities[0].max()
    assert result.metrics[PROBLEMS] == 4


def test_the_patches_are_those_of_the_answered_slides(result: StageResult) -> None:
    rows = Predictions.read(PREDICTED, local(result.artifacts["predictions"])).rows
    patches = Predictions.read(PATCHES, local(result.artifacts["patches"]))
    assert set(patches.rows["slide_id"]) == {rows["slide_id"][0]}
    assert len(patches.rows) == rows["n_patches"].sum() == rows["n_patches"][0] > 0
    said = [CLASSES[index] for index in patches.probabilities.argmax(axis=1)]
    assert patches.rows["predicted"].tolist() == said


def test_without_a_single_answer_there_is_no_submission(
    store: Path, slides: Path, classifier: SlideClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doctogres.serving.loading.load_classifier", lambda address: classifier)
    sorted(slides.glob("mask_*.png"))[0].unlink()
    with pytest.raises(
        CohortError, match=r"none of the 5 slides could be used: 2 missing_mask: img_0000, img_0001 \(the first: "
    ):
        predict(data=str(slides), model="models:/m-made-here", preset=load_preset("demo"))


def test_pictures_of_one_name_in_two_folders_and_a_sidecar(
    store: Path, slides: Path, classifier: SlideClassifier, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("doctogres.serving.loading.load_classifier", lambda address: classifier)
    root = tmp_path / "listed"
    for patient in ("P1", "P2"):
        (root / patient).mkdir(parents=True)
        (root / patient / "a.json").write_text("{}")
        for kind, name in (("img", "a.png"), ("mask", "drawn.png")):
            shutil.copy(sorted(slides.glob(f"{kind}_*.png"))[-5 if kind == "img" else 0], root / patient / name)
    (root / "test_labels.csv").write_text("image,mask\nP1/a.png,P1/drawn.png\nP2/a.png,P2/drawn.png\n")
    result = predict(data=str(root), model="models:/m-made-here", preset=load_preset("demo"))
    assert pd.read_csv(local(result.artifacts["submission"]))["sample_index"].tolist() == ["P1_a.png", "P2_a.png"]
    assert result.metrics[PROBLEMS] == 0
    (root / "test_labels.csv").write_text("image,mask\nP1/a.png,P2/drawn.png\nP2/a.png,P1/drawn.png\n")
    assert not predict(data=str(root), model="models:/m-made-here", preset=load_preset("demo")).reused
