"""Which trial a study keeps, and what that choice is worth on slides that did not take part in it."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

from doctogres.evaluation.metrics import macro_f1
from doctogres.settings import TrainSettings, TuneSettings
from doctogres.training.part import TrainingPart
from doctogres.training.probe import HeadRows, fit_head
from doctogres.tuning.outcome import nested_estimate, outcome_of
from doctogres.tuning.study import StudyResult
from doctogres.tuning.trials import PREDICTED

CLASSES = ("a", "b", "c")
FOLDS = 5
RULES = [TuneSettings(best_trial="highest"), TuneSettings(best_trial="one_standard_error")]


def part_of(truth: np.ndarray, folds: np.ndarray) -> TrainingPart:
    names = [f"s{number:03d}" for number in range(len(truth))]
    table = pd.DataFrame({
        "slide_id": names, "label": [CLASSES[label] for label in truth], "group": names,
        "fold": [f"fold{fold}" for fold in folds],
    })  # fmt: skip
    return cast(TrainingPart, SimpleNamespace(patches=SimpleNamespace(table=table), classes=list(CLASSES)))


def study_of(predictions: list[np.ndarray], truth: np.ndarray) -> StudyResult:
    """A finished study whose trials predicted this; the first has the preset's own settings."""
    names = [f"s{number:03d}" for number in range(len(truth))]
    trials: list[Any] = [
        SimpleNamespace(
            user_attrs={PREDICTED: dict(zip(names, predicted.tolist(), strict=True))},
            value=macro_f1(truth, predicted, 3),
            number=number,
        )
        for number, predicted in enumerate(predictions)
    ]
    study = cast(Any, SimpleNamespace(get_trials=lambda states: trials))
    return StudyResult(study, max(trials, key=lambda trial: trial.value), trials[0])


@pytest.fixture(scope="module")
def noise() -> list[tuple[StudyResult, TrainingPart]]:
    """Eight studies of fifty probes of random features and settings, whose labels are random, too."""
    rng, studies = np.random.default_rng(0), []
    for _ in range(8):
        truth, folds = rng.integers(0, 3, 60), np.arange(60) % FOLDS
        predictions = [probe(rng, truth, folds) for _ in range(50)]
        studies.append((study_of(predictions, truth), part_of(truth, folds)))
    return studies


@pytest.mark.slow
@pytest.mark.parametrize("settings", RULES, ids=lambda settings: settings.best_trial)
def test_with_noise_for_labels_fifty_trials_promise_nothing(
    noise: list[tuple[StudyResult, TrainingPart]], settings: TuneSettings
) -> None:
    """The best of fifty probes looks better than chance; its nested estimate does not."""
    estimates = [nested_estimate(result, part, settings, resamples=100, seed=0) for result, part in noise]
    nested = [estimate.value for estimate in estimates if estimate is not None]
    assert len(nested) == len(noise)
    assert np.mean([float(result.best_trial.value or 0) for result, _ in noise]) > 0.42
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


@pytest.mark.parametrize("settings", RULES, ids=lambda settings: settings.best_trial)
def test_a_trial_that_is_best_in_every_fold_keeps_its_score(settings: TuneSettings) -> None:
    rng = np.random.default_rng(1)
    truth, folds = np.arange(90) % 3, np.arange(90) % FOLDS
    good = np.where(rng.random(90) < 0.8, truth, (truth + 1) % 3)
    bad = [np.where(rng.random(90) < 0.4, truth, (truth + 1) % 3) for _ in range(10)]
    result = study_of([*bad, good], truth)
    estimate = nested_estimate(result, part_of(truth, folds), settings, resamples=100, seed=0)
    assert estimate is not None
    assert estimate.value == pytest.approx(macro_f1(truth, good, 3))
    assert estimate.low < estimate.value < estimate.high


def test_trials_of_one_fold_have_no_nested_estimate() -> None:
    truth = np.arange(30) % 3
    result = study_of([truth, (truth + 1) % 3], truth)
    assert nested_estimate(result, part_of(truth, np.zeros(30, int)), RULES[0], resamples=100, seed=0) is None


def test_two_slides_won_and_one_lost_do_not_replace_the_own_settings() -> None:
    """That is within chance; twenty slides won are not."""
    truth, folds, slides = np.arange(90) % 3, np.arange(90) % FOLDS, np.arange(90)
    right = [slides < 50, (slides >= 1) & (slides < 52), slides < 70]
    own, close, far = (np.where(of_trial, truth, (truth + 1) % 3) for of_trial in right)
    part = part_of(truth, folds)
    two, three = study_of([own, close], truth), study_of([own, close, far], truth)
    assert [outcome_of(two, part, rule).kept.number for rule in RULES] == [1, 0]
    assert [outcome_of(three, part, rule).kept.number for rule in RULES] == [2, 2]
    highest, one_error = (outcome_of(two, part, rule) for rule in RULES)
    assert "within one standard error of zero, so trial-000, the preset's own settings, is kept" in one_error.sentence
    assert "may be due to chance" in highest.sentence
    assert one_error.metrics == highest.metrics
    assert one_error.metrics["gain"] > 0


def test_the_nested_estimate_chooses_as_the_study_does() -> None:
    """A trial that wins two slides and loses one elsewhere, and all of one fold: only the highest score chooses it."""
    truth, folds, slides = np.arange(90) % 3, np.arange(90) % FOLDS, np.arange(90)
    of_own = slides < 50
    of_lucky = ((slides >= 1) & (slides < 53)) & ((folds != 4) | (slides > 52))
    own, lucky = (np.where(right, truth, (truth + 1) % 3) for right in (of_own, of_lucky))
    part, result = part_of(truth, folds), study_of([own, lucky], truth)
    highest, one_error = (nested_estimate(result, part, rule, resamples=100, seed=0) for rule in RULES)
    assert highest is not None
    assert one_error is not None
    assert one_error.value == pytest.approx(macro_f1(truth, own, 3))
    assert highest.value < one_error.value
