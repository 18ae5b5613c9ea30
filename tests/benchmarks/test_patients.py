"""What one answer for a patient gains, on planted slides."""

import numpy as np
import pandas as pd

from benchmarks.patients import ALL, ONE_LABEL, gains
from doctogres.evaluation.group_answers import ALONE

CLASSES = ["a", "b", "c"]


def test_a_patient_whose_slides_agree_gains_and_one_whose_slides_differ_loses() -> None:
    random = np.random.default_rng(3)
    truth = np.repeat(random.integers(0, 3, 60), 3)  # 60 patients of three slides
    truth[90:] = np.tile([0, 1, 2], 30)  # in half of them, every slide has another label
    odds = np.exp(1.5 * np.eye(3)[truth] + random.normal(0, 1, (180, 3)))
    slides = pd.DataFrame({"label": np.array(CLASSES)[truth], "group": [f"p{number // 3}" for number in range(180)]})
    slides.loc[180] = ["a", "alone"]
    shares = np.vstack([odds / odds.sum(1, keepdims=True), [[1.0, 0.0, 0.0]]])
    table = gains(slides, shares, CLASSES, resamples=200, seed=0)
    assert list(table.index) == [ALONE, "mean", "log_probabilities"]
    everyone, of_all, agreeing, of_agreeing = table.columns
    assert everyone == f"{ALL} (60, 180 slides): macro-F1"
    assert agreeing.startswith(f"{ONE_LABEL} (")
    for way in ("mean", "log_probabilities"):
        assert table[of_agreeing][way].low > 0
        assert table[of_all][way].value < table[of_agreeing][way].value
        assert table[everyone][way].value - table[everyone][ALONE].value == table[of_all][way].value
