"""The replay of studies: what a pruner saves and loses is counted from what it did."""

import numpy as np
import pytest

from benchmarks.pruners import TRIALS, WAYS, Scores, replayed, table
from benchmarks.recipes import markdown


def recipe(score: float) -> Scores:
    return Scores(np.full(5, score), np.full(5, score), [np.full(8, 1 - score)] * 5)


def test_without_a_pruner_every_fold_is_trained_and_the_best_recipe_chosen() -> None:
    pruner, report = WAYS["none"]
    assert replayed([recipe(0.5), recipe(0.9), recipe(0.7)], pruner(), report) == (15, 0.9)


def test_the_pruner_in_use_stops_what_is_clearly_worse() -> None:
    pruner, report = WAYS["median of the folds so far (in use)"]
    trained, best = replayed([recipe(0.9)] * 10 + [recipe(0.1)] * 10, pruner(), report)
    assert best == 0.9
    assert trained == 10 * 5 + 10


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_table_has_a_row_per_pruner() -> None:
    rng = np.random.default_rng(0)
    found = table([recipe(score) for score in rng.random(TRIALS)], 3, rng)
    assert list(found.index) == list(WAYS)
    assert list(found.loc["none"]) == ["100%", "100%", "0.0000", "0.0000"]
    assert markdown(found).startswith("| pruner | folds trained |")
