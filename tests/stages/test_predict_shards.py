"""predict and evaluate where others have answered: in shares of the slides, and on Spark."""

import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from doctogres.errors import DoctogresError, MissingSharesError
from doctogres.evaluation.answered import Answering, _loaded
from doctogres.evaluation.predictions import PATCHES, PREDICTED, Predictions
from doctogres.model.card import TrainingRecord
from doctogres.model.classifier import SlideClassifier, make_classifier
from doctogres.model.encoder import architecture_of
from doctogres.model.ensemble import Ensemble
from doctogres.model.network import create_network
from doctogres.model.temperature import Calibration
from doctogres.parquet import TableFile
from doctogres.presets import load_preset
from doctogres.records.slide import slides_of
from doctogres.settings import AnswerSettings, PatchSettings
from doctogres.slides.cohort import find_slides
from doctogres.stages.clean import clean
from doctogres.stages.evaluate import evaluate
from doctogres.stages.predict import predict
from doctogres.tracking.places import fetch
from doctogres.tracking.runs import StageResult, finished_runs
from tests.spark_cluster import cluster

ROUNDING = 1e-5  # of a share: networks are not told slides apart, and a batch's size decides how sums are rounded


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, small_cohort: Path) -> Path:
    """An untrained model in a folder, as MLflow keeps one."""
    import torch

    torch.manual_seed(0)
    classes = sorted(pd.read_csv(small_cohort / "train_labels.csv")["label"].unique())
    network = Ensemble([create_network("test_resnet", classes=len(classes), size=64)])
    classifier = make_classifier(
        [(architecture_of("test_resnet"), "regions", network)],
        recipe="finetune",
        classes=classes,
        class_shares=dict.fromkeys(classes, 1 / len(classes)),
        patch=PatchSettings(patch_size=64),
        answer=AnswerSettings(),
        region_side=40,
        calibration=Calibration.none(0.3),
        seen=TrainingRecord(),
        evidence={},
    )
    folder = tmp_path_factory.mktemp("model")
    classifier.save(folder / "artifacts/classifier")
    (folder / "MLmodel").write_text("{}")
    return folder


@pytest.fixture
def slides(small_cohort: Path, tmp_path: Path) -> Path:
    """Eight test slides, one without a mask and one cut off."""
    folder = tmp_path / "slides"
    folder.mkdir()
    for picture in sorted((small_cohort / "test_data").glob("img_*.png"))[:8]:
        for file in (picture, picture.with_name(picture.name.replace("img", "mask"))):
            shutil.copy(file, folder)
    pictures = sorted(folder.glob("img_*.png"))
    pictures[1].with_name(pictures[1].name.replace("img", "mask")).unlink()
    pictures[2].write_bytes(pictures[2].read_bytes()[:-40])
    return folder


def run(slides: Path, model: Path, shard: str = "", **options: Any) -> StageResult:
    preset = load_preset("demo", {"overlays": 1})
    return predict(data=str(slides), model=str(model), preset=preset, shard=shard, **options)


def read(result: StageResult, kind: TableFile, name: str) -> Predictions:
    return Predictions.read(kind, fetch(result.artifacts[name]))


def assert_same(first: StageResult, second: StageResult) -> None:
    for kind, name in ((PREDICTED, "predictions"), (PATCHES, "patches")):
        one, other = read(first, kind, name), read(second, kind, name)
        pd.testing.assert_frame_equal(one.rows, other.rows, rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=ROUNDING)
    assert fetch(first.artifacts["submission"]).read_bytes() == fetch(second.artifacts["submission"]).read_bytes()


@pytest.mark.parametrize("count", [1, 3])
def test_joined_shares_are_one_run(store: Path, slides: Path, model: Path, count: int) -> None:
    made = [run(slides, model, f"{number}/{count}") for number in range(1, count + 1)]
    assert sum(share.metrics["slides"] for share in made) == 8
    assert sum(share.metrics["problem_slides"] for share in made) == 1
    assert not finished_runs("predict")
    joined = run(slides, model, "join")
    assert run(slides, model).run_id == joined.run_id
    assert_same(joined, run(slides, model, rerun=True))
    assert read(joined, PREDICTED, "predictions").rows["outcome"].tolist().count("guessed") == 1


def test_the_outlines_come_with_the_shares(store: Path, slides: Path, model: Path) -> None:
    for number in (1, 2):
        run(slides, model, f"{number}/2", geojson=True)
    joined, alone = (run(slides, model, shard, geojson=True, rerun=True) for shard in ("join", ""))
    files = [sorted(fetch(f"runs:/{one.run_id}/geojson").iterdir()) for one in (joined, alone)]
    assert [file.name for file in files[0]] == [file.name for file in files[1]]
    assert len(files[0]) == 7


def test_shares_of_another_model_do_not_count(store: Path, slides: Path, model: Path, tmp_path: Path) -> None:
    run(slides, model, "1/1")
    other = tmp_path / "other"
    shutil.copytree(model, other)
    assert run(slides, other, "1/1").reused  # the same model in another place
    card = other / "artifacts/classifier/classifier.json"
    card.write_text(card.read_text().replace("0.3", "0.4"))
    with pytest.raises(MissingSharesError, match="1/1 was made with other settings"):
        run(slides, other, "join")


def test_a_process_loads_the_model_once(slides: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _loaded.cache_clear()
    loaded: list[Path] = []
    load = SlideClassifier.load

    def noted(folder: Path) -> SlideClassifier:
        loaded.append(folder)
        return load(folder)

    monkeypatch.setattr(SlideClassifier, "load", noted)
    work = Answering(slides, model / "artifacts/classifier", 0.25)
    for _ in range(2):
        assert len(list(work(slides_of(find_slides(slides, labelled=False))))) == 8
    assert loaded == [work.model]


@pytest.fixture
def cohort(store: Path, small_cohort: Path) -> str:
    return fetch(clean(data=str(small_cohort), preset=load_preset("demo"), seed=1).artifacts["cohort"]).as_posix()


@pytest.mark.slow
def test_spark_answers_and_scores_as_one_machine_does(
    store: Path, slides: Path, model: Path, cohort: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"model": str(model), "cohort": cohort, "split": "holdout", "seed": 1}
    options["preset"] = load_preset("demo", {"resamples": 100})
    (folder := tmp_path / "cluster").mkdir()
    with cluster(folder, workers=1) as made:  # each worker loads PyTorch anew for every stage
        there: dict[str, Any] = {"engine": "spark", "spark_master": made.master}
        by_spark, scored = run(slides, model, **there), evaluate(**options, **there)
    assert run(slides, model).run_id == by_spark.run_id
    assert_same(by_spark, run(slides, model, rerun=True))
    assert evaluate(**options).run_id == scored.run_id
    alone = evaluate(**options, rerun=True)
    for name, value in alone.metrics.items():
        assert scored.metrics[name] == pytest.approx(value, abs=ROUNDING), name
    one, other = (Predictions.read_csv(fetch(result.artifacts["predictions"])) for result in (scored, alone))
    pd.testing.assert_frame_equal(one.rows, other.rows, rtol=0, atol=ROUNDING)


@pytest.mark.slow
def test_a_slide_that_cannot_be_scored_is_named_on_spark_too(
    store: Path, model: Path, cohort: str, small_cohort: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(small_cohort, moved)
    table = pd.read_parquet(cohort)
    lost = table.loc[table["fold"] == "holdout", "image"].iloc[0]
    (moved / lost).write_bytes(b"no picture")
    options: dict[str, Any] = {"model": str(model), "cohort": cohort, "split": "holdout", "seed": 1}
    with pytest.raises(DoctogresError, match=Path(lost).stem):
        evaluate(**options, preset=load_preset("demo"), data=str(moved), engine="spark", spark_master="local[1]")
    assert mlflow.active_run() is None
