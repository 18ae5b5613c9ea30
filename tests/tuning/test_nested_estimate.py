"""What a study's choice is worth on slides that did not take part in it."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from doctogres.evaluation.metrics import macro_f1
from doctogres.settings import TrainSettings
from doctogres.training.part import TrainingPart
from doctogres.training.probe import HeadRows, fit_head
from doctogres.tuning.outcome import nested_estimate
from doctogres.tuning.study import StudyResult
from doctogres.tuning.trials import PREDICTED

CLASSES = ("a", "b", "c")
FOLDS = 5


def part_of(truth: np.ndarray, folds: np.ndarray) -> TrainingPart:
    names = [f"s{number:03d}" for number in range(len(truth))]
    table = pd.DataFrame({
        "slide_id": names, "label": [CLASSES[label] for label in truth], "group": names,
        "fold": [f"fold{fold}" for fold in folds],
    })  # fmt: skip
    return cast(TrainingPart, SimpleNamespace(patches=SimpleNamespace(table=table), classes=list(CLASSES)))


def study_of(predictions: list[np.ndarray], truth: np.ndarray) -> StudyResult:
    """A finished study whose trials predicted this."""
    names = [f"s{number:03d}" for number in range(len(truth))]
    trials: list[Any] = [
        SimpleNamespace(
            user_attrs={PREDICTED: dict(zip(names, predicted.tolist(), strict=True))},
            value=macro_f1(truth, predicted, 3),
        )
        for predicted in predictions
    ]
    study = cast(Any, SimpleNamespace(get_trials=lambda states: trials))
    return StudyResult(study, max(trials, key=lambda trial: trial.value), None)


@pytest.mark.slow
def test_with_noise_for_labels_fifty_trials_promise_nothing() -> None:
    """The best of fifty probes of random features and settings looks better than chance; its nested estimate does not."""
    rng = np.random.default_rng(0)
    best: list[float] = []
    nested: list[float] = []
    for _ in range(8):
        truth, folds = rng.integers(0, 3, 60), np.arange(60) % FOLDS
        predictions = [probe(rng, truth, folds) for _ in range(50)]
        result = study_of(predictions, truth)
        estimate = nested_estimate(result, part_of(truth, folds), resamples=100, seed=0)
        assert estimate is not None
        best.append(float(result.best_trial.value or 0))
        nested.append(estimate.value)
    assert np.mean(best) > 0.42
    assert abs(np.mean(nested) - 0.33) < 0.05


def probe(rng: np.random.Generator, truth: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Out-of-fold classes of a probe on features that know nothing, with a random setting."""
    features = rng.normal(size=(len(truth), 12))
    settings = TrainSettings(logistic_c=float(10 ** rng.uniform(-4, 0)))
    predicted = np.empty(len(truth), np.int64)
    for fold in range(FOLDS):
        train = folds != fold
        groups = [str(row) for row in np.flatnonzero(train)]
        head = fit_head(HeadRows.equal(features[train], truth[train], groups), 3, settings)
        predicted[~train] = head.logits(features[~train]).argmax(1)
    return predicted


def test_a_trial_that_is_best_in_every_fold_keeps_its_score() -> None:
    rng = np.random.default_rng(1)
    truth, folds = np.arange(90) % 3, np.arange(90) % FOLDS
    good = np.where(rng.random(90) < 0.8, truth, (truth + 1) % 3)
    bad = [np.where(rng.random(90) < 0.4, truth, (truth + 1) % 3) for _ in range(10)]
    result = study_of([*bad, good], truth)
    estimate = nested_estimate(result, part_of(truth, folds), resamples=100, seed=0)
    assert estimate is not None
    assert estimate.value == pytest.approx(macro_f1(truth, good, 3))
    assert estimate.low < estimate.value < estimate.high


def test_trials_of_one_fold_have_no_nested_estimate() -> None:
    truth = np.arange(30) % 3
    result = study_of([truth, (truth + 1) % 3], truth)
    assert nested_estimate(result, part_of(truth, np.zeros(30, int)), resamples=100, seed=0) is None
