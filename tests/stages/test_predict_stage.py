"""predict: what becomes of slides that cannot be used."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from doctogres.model.encoder import architecture_of
from doctogres.model.ensemble import Ensemble
from doctogres.model.group_answer import GroupRule
from doctogres.model.network import create_network
from doctogres.model.temperature import Calibration
from doctogres.names import artifact_name
from doctogres.presets import load_preset
from doctogres.settings import AnswerSettings, PatchSettings
from doctogres.slides.images import encode_png, read_rgb
from doctogres.slides.reasons import Reason
from doctogres.stages.predict import predict
from doctogres.tracking.runs import PROBLEMS, StageResult
from tests.stores import used_models

CLASSES = ("slide_id", "label")


@pytest.fixture
def classifier() -> SlideClassifier:
    torch.manual_seed(0)
    return make_classifier(
        [(architecture_of("test_resnet"), "regions", Ensemble([create_network("test_resnet", classes=2, size=64)]))],
        recipe="finetune",
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
    return predict(data=str(slides), model=made_here(), preset=load_preset("demo"))


def made_here() -> str:
    """The address of the store's only model, whose place in the tests `classifier` takes."""
    found = mlflow.search_logged_models(output_format="list")
    return f"models:/{(found[0] if found else mlflow.initialize_logged_model(name='made-here')).model_id}"


def local(uri: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))


def table(result: StageResult) -> pd.DataFrame:
    return pd.read_csv(local(result.artifacts["table"]), keep_default_na=False, dtype=str)


def submission(result: StageResult) -> list[str]:
    return pd.read_csv(local(result.artifacts["submission"]), keep_default_na=False)["label"].tolist()


@pytest.fixture
def run(
    store: Path, slides: Path, classifier: SlideClassifier, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., StageResult]:
    """The stage on the slides, with these settings."""
    monkeypatch.setattr("doctogres.serving.loading.load_classifier", lambda address: classifier)

    def made(output: str = "", *, geojson: bool = False, **settings: Any) -> StageResult:
        preset = load_preset("demo", settings)
        return predict(data=str(slides), model=made_here(), preset=preset, output=output, geojson=geojson)

    return made


def test_the_model_is_an_input_of_the_run(result: StageResult) -> None:
    assert [f"models:/{model_id}" for model_id in used_models(result.run_id)] == [made_here()]


def test_every_slide_has_a_row_and_what_cannot_be_used_its_reason_and_a_guess(result: StageResult) -> None:
    predictions = Predictions.read(PREDICTED, local(result.artifacts["predictions"]))
    rows = predictions.rows
    assert rows["outcome"].tolist() == [ANSWERED, ANSWERED, GUESSED, GUESSED, GUESSED]
    expected = [Reason.UNREADABLE_IMAGE, Reason.MASK_VALUES, Reason.EMPTY_MASK]
    assert [Reason.of(reason) for reason in rows["reason"][2:]] == expected
    assert rows["label"].tolist()[2:] == ["label"] * 3  # the most frequent class of the training part
    assert predictions.classes == CLASSES
    np.testing.assert_array_equal(predictions.probabilities[2:], [[0.3, 0.7]] * 3)
    assert rows["confidence"][0] == predictions.probabilities[0].max()
    assert result.metrics[PROBLEMS] == 3


def test_a_slide_without_a_mask_gets_the_served_models_answer_for_its_tissue(
    result: StageResult, slides: Path, classifier: SlideClassifier
) -> None:
    predictions = Predictions.read(PREDICTED, local(result.artifacts["predictions"]))
    assert predictions.rows["mask_source"].tolist() == ["given", "tissue", "", "", ""]
    rgb = read_rgb(slides / predictions.rows["sample_index"][1])
    answer = classifier.classify(rgb, None)
    np.testing.assert_allclose(predictions.probabilities[1], answer.probabilities, rtol=1e-6)
    assert "no mask was given" in predictions.rows["reason"][1]


def test_the_table_for_people_says_which_answers_are_none(result: StageResult) -> None:
    rows = table(result)
    names = ["slide_id", "label", "sure", "confidence", "p_slide_id", "p_label"]
    assert list(rows) == [*names, "labels", "novelty", "patches", "mask_source", "reason", "model"]
    predictions = Predictions.read(PREDICTED, local(result.artifacts["predictions"]))
    assert rows["label"].tolist() == [*predictions.rows["label"][:2], "", "", ""]
    assert rows["sure"].tolist()[2:] == ["False"] * 3
    assert (rows.loc[2:, ["confidence", "p_slide_id", "p_label", "mask_source"]] == "").all().all()
    np.testing.assert_allclose(
        rows.loc[:1, ["p_slide_id", "p_label"]].astype(float).to_numpy(), predictions.probabilities[:2]
    )
    assert set(rows["model"]) == {made_here()}
    assert all(rows["reason"][2:])


def test_the_summary_counts_answers_and_guesses(
    run: Callable[..., StageResult], capsys: pytest.CaptureFixture[str]
) -> None:
    result = run()
    assert "2 of 5 slides answered" in (said := capsys.readouterr().out)
    assert "3 guessed" in said
    note = mlflow.get_run(result.run_id).data.tags["mlflow.note.content"]
    assert "2 of 5 slides answered" in note


def test_slides_without_an_answer_are_guessed_left_empty_or_refused(run: Callable[..., StageResult]) -> None:
    guessed, empty = run(), run(unanswered="empty")
    assert submission(guessed)[2:] == ["label"] * 3
    assert submission(empty) == [*submission(guessed)[:2], "", "", ""]
    assert not empty.reused
    with pytest.raises(CohortError, match="3 of 5 slides could not be used and unanswered=error"):
        run(unanswered="error", output="submission.csv")
    assert not Path("submission.csv").exists()
    failed = mlflow.search_runs(filter_string="attributes.status = 'FAILED'", output_format="list")[0]
    assert [file.path for file in mlflow.MlflowClient().list_artifacts(failed.info.run_id) if "." in file.path] == [
        "predictions.csv"
    ]


def test_with_an_answer_for_every_slide_error_changes_nothing(run: Callable[..., StageResult], slides: Path) -> None:
    for picture in sorted(slides.glob("img_*.png"))[2:]:
        picture.unlink()
        picture.with_name(picture.name.replace("img", "mask")).unlink(missing_ok=True)
    assert submission(run(unanswered="error")) == submission(run())


@pytest.mark.parametrize(
    ("output", "beside"), [("submission.csv", "predictions.csv"), ("mine.csv", "mine_predictions.csv")]
)
def test_the_copies_lie_beside_each_other(run: Callable[..., StageResult], output: str, beside: str) -> None:
    result = run(output)
    assert Path(output).read_bytes() == local(result.artifacts["submission"]).read_bytes()
    assert Path(beside).read_bytes() == local(result.artifacts["table"]).read_bytes()


@pytest.mark.parametrize("names", [("a#1", "50%", "ü ö", "x;y", "a?x"), ("a#1", "a#2", "a?1", "a_1", "a 1")])
def test_every_slides_overlay_has_a_name_of_its_own(
    run: Callable[..., StageResult], slides: Path, names: tuple[str, ...]
) -> None:
    good = min(slides.glob("img_*.png"))
    content = {part: good.with_name(good.name.replace("img", part)).read_bytes() for part in ("img", "mask")}
    for file in slides.glob("*.png"):
        file.unlink()
    for name in names:
        for part in ("img", "mask"):
            (slides / f"{part}_{name}.png").write_bytes(content[part])
    result = run(overlays=9, geojson=True)
    client = mlflow.MlflowClient()
    files = [Path(file.path).name for file in client.list_artifacts(result.run_id, "overlays")]
    outlines = [Path(file.path).stem for file in client.list_artifacts(result.run_id, "geojson")]
    assert sorted(outlines) == sorted(Path(file).stem for file in files)
    assert sorted(files) == sorted(f"{artifact_name(f'img_{name}')}.png" for name in names)
    assert len(files) == len(set(files)) == len(names)
    assert all(file.endswith(".png") and not set(file) & set("#?%; ") for file in files)
    assert table(result)["slide_id"].tolist() == sorted(f"img_{name}" for name in names)


def test_the_patches_are_those_of_the_answered_slides(result: StageResult) -> None:
    rows = Predictions.read(PREDICTED, local(result.artifacts["predictions"])).rows
    patches = Predictions.read(PATCHES, local(result.artifacts["patches"]))
    assert patches.rows["slide_id"].value_counts().to_dict() == rows[:2].set_index("slide_id")["n_patches"].to_dict()
    assert (rows["n_patches"][:2] > 0).all()
    said = [CLASSES[index] for index in patches.probabilities.argmax(axis=1)]
    assert patches.rows["predicted"].tolist() == said


def test_without_a_single_answer_there_is_no_submission(run: Callable[..., StageResult], slides: Path) -> None:
    for picture in sorted(slides.glob("img_*.png"))[:2]:
        picture.write_bytes(b"no picture")
    with pytest.raises(CohortError, match="none of the 5 slides could be used: 3 unreadable_image: img_"):
        run()


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
    result = predict(data=str(root), model=made_here(), preset=load_preset("demo"))
    assert pd.read_csv(local(result.artifacts["submission"]))["sample_index"].tolist() == ["P1_a.png", "P2_a.png"]
    assert result.metrics[PROBLEMS] == 0
    (root / "test_labels.csv").write_text("image,mask\nP1/a.png,P2/drawn.png\nP2/a.png,P1/drawn.png\n")
    assert not predict(data=str(root), model=made_here(), preset=load_preset("demo")).reused


def test_the_patients_that_the_table_names_are_answered(
    run: Callable[..., StageResult],
    classifier: SlideClassifier,
    slides: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    names = sorted(path.stem for path in slides.glob("img_*.png"))
    rows = [f"{name}.png,{group}" for name, group in zip(names, ["p", "P", "q", "", "p"], strict=True)]
    (slides / "test_labels.csv").write_text("\n".join(["sample_index,group", *rows]))
    assert "groups" not in run().artifacts  # the model has no rule
    rule = GroupRule(method="mean", calibration=Calibration.none(0.9))
    grouping = replace(classifier, card=classifier.card.model_copy(update={"group": rule}))
    monkeypatch.setattr("doctogres.serving.loading.load_classifier", lambda address: grouping)
    result = run(unanswered="empty", output=str(tmp_path / "mine.csv"))
    found = pd.read_csv(local(result.artifacts["groups"]), keep_default_na=False).set_index("group")
    assert (tmp_path / "mine_group_predictions.csv").read_bytes() == local(result.artifacts["groups"]).read_bytes()
    assert found["slides"].to_dict() == {"p": 2, "q": 0}
    shares = Predictions.read(PREDICTED, local(result.artifacts["predictions"])).of_slides(names[:2], CLASSES)
    np.testing.assert_allclose(found.loc["p", [f"p_{name}" for name in CLASSES]].astype(float), shares.mean(axis=0))
    assert names[4] in found["left_out"]["p"]
    assert (found["predicted"]["q"], found["reason"]["q"]) == ("", "no slide of the group has an answer")
    (slides / "test_labels.csv").write_text("\n".join(["sample_index,group", *rows]).replace("q", "r"))
    assert not run().reused  # another grouping is another result
