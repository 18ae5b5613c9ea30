"""Out-of-fold answers put together, calibrated and compared."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doctogres.errors import ParameterError
from doctogres.evaluation.metrics import macro_f1
from doctogres.evaluation.oof import assess, gather
from doctogres.model.temperature import apply_temperature

CLASSES = ["a", "b", "c"]


def answers(truth: np.ndarray, strength: float, seed: int) -> np.ndarray:
    """Probabilities that favour the truth by `strength`."""
    logits = np.random.default_rng(seed).normal(0, 1, (len(truth), 3)) + strength * np.eye(3)[truth]
    odds = np.exp(3 * logits)
    shares: np.ndarray = odds / odds.sum(1, keepdims=True)
    return shares


@pytest.fixture
def slides() -> pd.DataFrame:
    truth = np.random.default_rng(1).integers(0, 3, 60)
    ids = [f"s{number:02d}" for number in range(60)]
    return pd.DataFrame({"slide_id": ids, "label": [CLASSES[one] for one in truth], "group": ids, "truth": truth})


def in_folds(slides: pd.DataFrame, folds: int, seed: int) -> list[Any]:
    """Answers of two ways, dealt into folds in another order each round."""
    order = np.random.default_rng(seed).permutation(len(slides))
    truth = slides["truth"].to_numpy()
    ways = {"mean": answers(truth, 0.5, seed), "attention": answers(truth, 2.0, seed)}
    parts = np.array_split(order, folds)
    return [(slides["slide_id"].iloc[part].tolist(), {way: rows[part] for way, rows in ways.items()}) for part in parts]


def test_every_slide_keeps_its_own_answer_whatever_the_folds(slides: pd.DataFrame) -> None:
    once = gather(slides, [in_folds(slides, 4, seed=0)])
    otherwise = gather(slides, [in_folds(slides, 7, seed=0)])
    assert once.slides["slide_id"].tolist() == slides["slide_id"].tolist()
    for way in ("mean", "attention"):
        np.testing.assert_array_equal(once.repeats[way][0], otherwise.repeats[way][0])
    np.testing.assert_array_equal(once.repeats["mean"][0], answers(slides["truth"].to_numpy(), 0.5, 0))


def test_the_better_way_is_shown_to_be_better_and_the_chosen_one_is_calibrated(slides: pd.DataFrame) -> None:
    rounds = [in_folds(slides, 4, seed) for seed in (0, 1, 2)]
    found = gather(slides, rounds)
    result = assess(
        found,
        CLASSES,
        chosen="mean",
        against={"attention": "mean"},
        target_precision=0.8,
        labels_coverage=0.9,
        group_answer="auto",
        recipe="probe",
        resamples=500,
        seed=0,
    )
    rows = result.aggregations.set_index("name")
    truth = slides["truth"].to_numpy()
    by_hand = np.mean([macro_f1(truth, one.argmax(1), 3) for one in found.repeats["mean"]])
    assert rows.loc["mean", "macro_f1"] == pytest.approx(by_hand)
    assert rows["difference_low"]["attention"] > 0
    assert pd.isna(rows["difference"]["mean"])
    assert rows["chosen"].tolist() == [True, False]
    assert result.calibration.slides == 60  # each answered in three rounds
    assert result.calibration.temperature > 1  # the planted answers are three times as sure as they should be
    assert result.labels is not None
    shown = apply_temperature(found.repeats["mean"][0], result.calibration.temperature)
    held = result.labels.holding(shown)[np.arange(60), truth]
    assert 0.85 <= held.mean() <= 0.97
    assert result.evidence["repeats"] == 3
    assert result.group is None
    assert result.evidence["group_answer"]["reason"] == "no group has several slides"
    assert json.loads(json.dumps(result.evidence, allow_nan=False)) == result.evidence


def test_slides_of_one_round_only_are_refused(slides: pd.DataFrame) -> None:
    fewer = in_folds(slides, 4, seed=1)[:3]
    with pytest.raises(ParameterError, match="120 slides"):
        assess(
            gather(slides, [in_folds(slides, 4, seed=0), fewer]),
            CLASSES, chosen="mean", against={}, target_precision=0.8, labels_coverage=0.9, group_answer="none", recipe="probe",
            resamples=100, seed=0,
        )  # fmt: skip
