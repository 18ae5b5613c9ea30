"""What becomes of a trial's run if the trial does not end well, and how it is scored if it does."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from doctogres.patches.pixels import PatchSet
from doctogres.presets import load_preset
from doctogres.tracking.interrupted import INTERRUPTED, STATE_TAG
from doctogres.tracking.runs import NOTE_TAG, open_run
from doctogres.training.part import TrainingPart
from doctogres.training.samples import Samples
from doctogres.tuning import trials
from doctogres.tuning.trials import RUN, TrialInputs, run_trial

pytestmark = pytest.mark.slow  # imports torch


@pytest.mark.parametrize(
    ("error", "status", "state", "words"),
    [
        (KeyboardInterrupt, "KILLED", INTERRUPTED, "Interrupted"),
        (RuntimeError("no memory"), "FAILED", "FAIL", "no memory"),
    ],
    ids=["interrupted", "failed"],
)
def test_an_interrupted_trial_is_killed_and_a_failed_one_is_failed(
    store: Path, monkeypatch: pytest.MonkeyPatch, error: Any, status: str, state: str, words: str
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(trials, "trial_splits", fail)
    preset = load_preset("demo")
    study = optuna.create_study()
    trial = study.ask()
    with pytest.raises((KeyboardInterrupt, RuntimeError)), open_run("tune"):
        run_trial(trial, {"dropout": 0.1}, TrialInputs({}, preset.patch, preset, seed=1))
    assert study.trials[0].state == TrialState.RUNNING  # its worker tells the study
    run = mlflow.get_run(trial.user_attrs[RUN])
    assert run.info.status == status
    assert run.data.tags[STATE_TAG] == state
    assert words in run.data.tags[NOTE_TAG]
    assert mlflow.get_run(run.data.tags["mlflow.parentRunId"]).info.status == status


def of_view(view: str, *, each: int) -> TrainingPart:
    """Six slides of two classes in two folds, with so many patches each."""
    slides = pd.DataFrame({"slide_id": [f"s{number}" for number in range(6)], "label": ["a", "b"] * 3})
    slides["group"], slides["fold"] = slides["slide_id"], ["fold0"] * 2 + ["fold1"] * 4
    table = slides.loc[slides.index.repeat(each)].reset_index(drop=True).assign(view=view, area=100)
    table["patch_id"] = [f"{view}-{number}" for number in range(len(table))]
    pixels = np.zeros((len(table), 8, 8, 3), np.uint8)
    targets = np.array([int(label == "b") for label in table["label"]], np.int64)
    samples = Samples(pixels, targets, table["slide_id"].to_numpy(str), np.arange(1.0, len(table) + 1), view)
    return TrainingPart(PatchSet(table, pixels), samples, ["a", "b"], ["fold0", "fold1"])


def test_a_fine_tuned_trial_is_scored_as_its_model_would_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two views, of which the windows count twice in the geometric mean of the preset `small`."""
    parts = {"window224": of_view("window224", each=1), "regions": of_view("regions", each=2)}
    said = {"window224": np.array([[0.9, 0.1], [0.4, 0.6]]), "regions": np.array([[0.2, 0.8]] * 2 + [[0.7, 0.3]] * 2)}

    def trained(samples: Samples, *arguments: Any, **options: Any) -> Any:
        return SimpleNamespace(best=SimpleNamespace(slide_macro_f1=1.0), probabilities=said[samples.pixels_key])

    monkeypatch.setattr(trials, "train_network", trained)
    recipe = load_preset("small", {"recipe": "finetune", "backbone": "test_resnet", "weights": "none"})
    inputs = TrialInputs(parts, recipe.patch, recipe, seed=1)
    split, *_ = trials.trial_splits(recipe, inputs)
    slides, probabilities = trials._trained_scorer(optuna.create_study().ask(), recipe, inputs)(split)
    assert slides == ["s0", "s1"]
    expected = said["window224"] ** (2 / 3) * said["regions"][::2] ** (1 / 3)
    np.testing.assert_allclose(probabilities, expected / expected.sum(axis=1, keepdims=True))
