"""A class may be called whatever a laboratory calls it, the columns of our own tables included."""

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from doctogres.evaluation.predictions import PATCHES, PREDICTED, Predictions
from doctogres.evaluation.scores import Scores
from doctogres.presets import load_preset
from doctogres.stages.clean import clean
from doctogres.stages.evaluate import evaluate
from doctogres.stages.patch import patch
from doctogres.stages.predict import predict
from doctogres.stages.register import register
from doctogres.stages.train import train

CLASSES = ("area", "label", "p_label", "slide_id")


@pytest.fixture
def cohort(small_cohort: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "cohort"
    shutil.copytree(small_cohort, folder)
    labels = pd.read_csv(folder / "train_labels.csv", dtype=str)
    names = dict(zip(sorted(labels["label"].unique()), CLASSES, strict=True))
    labels.assign(label=labels["label"].map(names)).to_csv(folder / "train_labels.csv", index=False)
    return folder


def local(uri: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))


@pytest.mark.slow
def test_classes_named_like_columns_go_through_every_stage(store: Path, cohort: Path) -> None:
    preset = load_preset("demo", {"epochs": 1, "resamples": 100})
    cleaned = clean(data=str(cohort), preset=preset, seed=1)
    trained = train(patches=patch(cohort=cleaned.run_id, preset=preset).run_id, params="none", preset=preset, seed=1)
    scored = evaluate(model=trained.run_id, cohort=cleaned.run_id, split="holdout", preset=preset, seed=1)
    evaluated = Predictions.read_csv(local(scored.artifacts["predictions"]))
    assert evaluated.classes == Scores.read(local(scored.artifacts["metrics"])).classes == CLASSES
    assert set(evaluated.rows["label"]) <= set(CLASSES)
    np.testing.assert_allclose(evaluated.probabilities.max(axis=1), evaluated.rows["confidence"])
    said = [CLASSES[index] for index in evaluated.probabilities.argmax(axis=1)]
    assert evaluated.rows["predicted"].tolist() == said

    card = local(register(evaluation=scored.run_id, preset=preset, seed=1, promote="force").artifacts["card"])
    assert all(f"| {name.replace('_', chr(92) + '_')} |" in card.read_text() for name in CLASSES)
    answered = predict(data=str(cohort), model=trained.run_id, preset=preset)
    predicted = Predictions.read(PREDICTED, local(answered.artifacts["predictions"]))
    patches = Predictions.read(PATCHES, local(answered.artifacts["patches"]))
    assert predicted.classes == patches.classes == CLASSES
    np.testing.assert_allclose(predicted.probabilities.sum(axis=1), 1)
    assert (
        patches.rows["slide_id"].value_counts().to_dict() == predicted.rows.set_index("slide_id")["n_patches"].to_dict()
    )
    served = mlflow.pyfunc.load_model(trained.artifacts["model"]).predict(
        pd.DataFrame({"image": [(cohort / "test_data" / predicted.rows["sample_index"][0]).read_bytes()]})
    )
    assert tuple(served[0]["probabilities"]) == tuple(served[0]["patches"][0]["probabilities"]) == CLASSES
