"""A class may be called whatever a laboratory calls it, the columns of our own tables included."""

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from markupsafe import escape

from doctogres.evaluation.predictions import PATCHES, PREDICTED, Predictions
from doctogres.evaluation.scores import Scores
from doctogres.pages import markdown
from doctogres.presets import load_preset
from doctogres.stages.candidate import candidate_of
from doctogres.stages.clean import clean
from doctogres.stages.evaluate import evaluate
from doctogres.stages.patch import patch
from doctogres.stages.predict import predict
from doctogres.stages.register import register
from doctogres.stages.train import train

COLUMNS = ("area", "label", "p_label", "slide_id")
HOSTILE = ("..", "50% <b>&", "ER+//PR+", "导管癌")


@pytest.fixture(params=[COLUMNS, HOSTILE], ids=["columns", "hostile"])
def classes(request: pytest.FixtureRequest) -> tuple[str, ...]:
    names: tuple[str, ...] = request.param
    return names


@pytest.fixture
def cohort(small_cohort: Path, tmp_path: Path, classes: tuple[str, ...]) -> Path:
    folder = tmp_path / "cohort"
    shutil.copytree(small_cohort, folder)
    labels = pd.read_csv(folder / "train_labels.csv", dtype=str)
    names = dict(zip(sorted(labels["label"].unique()), classes, strict=True))
    labels.assign(label=labels["label"].map(names)).to_csv(folder / "train_labels.csv", index=False)
    return folder


def local(uri: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))


@pytest.mark.slow
def test_classes_of_any_name_go_through_every_stage(store: Path, cohort: Path, classes: tuple[str, ...]) -> None:
    preset = load_preset("demo", {"epochs": 1, "resamples": 100})
    cleaned = clean(data=str(cohort), preset=preset, seed=1)
    trained = train(patches=patch(cohort=cleaned.run_id, preset=preset).run_id, params="none", preset=preset, seed=1)
    scored = evaluate(model=trained.run_id, cohort=cleaned.run_id, split="holdout", preset=preset, seed=1)
    evaluated = Predictions.read_csv(local(scored.artifacts["predictions"]))
    assert evaluated.classes == Scores.read(local(scored.artifacts["metrics"])).classes == classes
    assert set(evaluated.rows["label"]) <= set(classes)
    np.testing.assert_allclose(evaluated.probabilities.max(axis=1), evaluated.rows["confidence"])
    said = [classes[index] for index in evaluated.probabilities.argmax(axis=1)]
    assert evaluated.rows["predicted"].tolist() == said

    card = local(
        register(candidate_of(evaluation=scored.run_id, preset=preset, seed=1, promote="force")).artifacts["card"]
    )
    assert all(f"| {markdown(name)} |" in card.read_text(encoding="utf-8") for name in classes)
    page = local(scored.artifacts["report"]).read_text(encoding="utf-8")
    assert "<b>" not in page.replace("<body>", "")
    assert all(escape(name) in page for name in classes)
    answered = predict(data=str(cohort), model=trained.run_id, preset=preset)
    predicted = Predictions.read(PREDICTED, local(answered.artifacts["predictions"]))
    patches = Predictions.read(PATCHES, local(answered.artifacts["patches"]))
    assert predicted.classes == patches.classes == classes
    np.testing.assert_allclose(predicted.probabilities.sum(axis=1), 1)
    assert (
        patches.rows["slide_id"].value_counts().to_dict() == predicted.rows.set_index("slide_id")["n_patches"].to_dict()
    )
    served = mlflow.pyfunc.load_model(trained.artifacts["model"]).predict(
        pd.DataFrame({"image": [(cohort / "test_data" / predicted.rows["sample_index"][0]).read_bytes()]})
    )
    assert tuple(served[0]["probabilities"]) == tuple(served[0]["patches"][0]["probabilities"]) == classes
