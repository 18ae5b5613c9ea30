"""Every two of several models, on the same resamples."""

import numpy as np
import pandas as pd
import pytest

from doctogres.errors import ParameterError
from doctogres.evaluation.comparison import compare
from doctogres.evaluation.pairs import compare_pairs
from doctogres.evaluation.predictions import Predictions

CLASSES = ("a", "b")
RANDOM = np.random.default_rng(0)
TRUTH = RANDOM.choice(CLASSES, 80)


def model(share: float, classes: tuple[str, ...] = CLASSES) -> Predictions:
    """A model that is right on this share of the slides; its rows are in an order of their own."""
    right = np.random.default_rng(7).random(80) < share
    shares = np.where((np.array(classes) == TRUTH[:, None]) == right[:, None], 0.9, 0.1)
    order = np.random.default_rng(round(100 * share)).permutation(80)
    rows = pd.DataFrame(
        {"slide_id": np.arange(80).astype(str), "label": TRUTH, "group": (np.arange(80) // 2).astype(str)}
    )
    return Predictions(rows.iloc[order].reset_index(drop=True), classes, shares[order])


def test_the_difference_is_that_of_the_two_alone_and_says_who_is_better() -> None:
    models = {"good": model(0.9), "same": model(0.88, ("b", "a")), "bad": model(0.5)}
    pairs = {(pair.model, pair.against): pair for pair in compare_pairs(models, resamples=500, seed=2)}
    assert [pair.sentence for pair in pairs.values()] == ["no difference is shown", "good is better", "same is better"]
    rows = models["good"].rows
    alone = compare(
        rows["label"].tolist(),
        {name: [models[name].of_slides(rows["slide_id"].tolist(), CLASSES)] for name in ("good", "bad")},
        CLASSES,
        against={"good": "bad"},
        groups=rows["group"].tolist(),
        resamples=500,
        seed=2,
    )
    assert pairs["good", "bad"].difference == alone.differences["good"]
    (turned,) = compare_pairs({name: models[name] for name in ("bad", "good")}, resamples=500, seed=2)
    assert turned.sentence == "good is better"


def test_models_of_other_classes_are_not_compared() -> None:
    with pytest.raises(ParameterError, match=r"model=other: its classes \(a, c\) are not those of one \(a, b\)"):
        compare_pairs({"one": model(0.9), "other": model(0.9, ("a", "c"))}, resamples=100, seed=0)
