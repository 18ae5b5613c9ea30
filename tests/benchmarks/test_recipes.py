"""The comparison of recipes: every row is what the product itself would train, evaluate and serve."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest

from benchmarks.recipes import BY_AREA, PRESET, REFERENCE, ROWS, WIDE, Inputs, chosen_rows, markdown, recipe_table
from doctogres.catalogue import SECOND
from doctogres.presets import load_preset
from doctogres.stages.clean import clean
from doctogres.stages.evaluate import evaluate
from doctogres.stages.patch import patch
from doctogres.stages.train import train

SMALL = {"backbone": "test_resnet", "weights": "none", "patch_size": 32, "folds": 3, "epochs": 1, "final": "all"}
SEED = 5


@pytest.mark.slow
def test_a_row_is_what_train_reports_and_what_evaluate_measures(store, small_cohort):
    preset = load_preset("small", SMALL)
    inputs = Inputs.prepare(small_cohort, preset, SEED)
    table = recipe_table(inputs, ROWS, test="all")

    assert list(table.index) == [row.name for row in ROWS]
    assert table["CPU minutes"].gt(0).all()
    assert table["difference from the reference"].isna().tolist() == [True] + [False] * (len(ROWS) - 1)
    assert len(markdown(table).splitlines()) == 2 + len(ROWS)
    cleaned = clean(data=str(small_cohort), preset=preset, seed=SEED).run_id
    cut = patch(cohort=cleaned, preset=preset, data=str(small_cohort)).run_id
    trained = train(patches=cut, params="none", preset=preset, seed=SEED)
    evidence = json.loads(
        Path(mlflow.artifacts.download_artifacts(artifact_uri=trained.artifacts["evidence"])).read_text("utf-8")
    )
    own: Any = table.loc[PRESET, "macro-F1"]
    assert own.value == pytest.approx(evidence["metrics"]["macro_f1"]["value"], abs=1e-12)
    assert own.low == pytest.approx(evidence["metrics"]["macro_f1"]["low"], abs=0.02)
    without = recipe_table(inputs, chosen_rows(["small"], probes=True), test="training", reference=PRESET)
    assert without["difference from the reference, test slides"].isna().tolist() == [False, True]
    for found, model in (table, trained.artifacts[SECOND]), (without, trained.artifacts["model"]):
        on_test = evaluate(model=model, cohort=cleaned, split="test", preset=preset, seed=SEED)
        scored: Any = found.loc[PRESET, "macro-F1, test slides"]
        assert scored.value == pytest.approx(on_test.metrics["macro_f1"], abs=1e-12)


def test_rows_are_chosen_by_name_with_what_they_need():
    names = [row.name for row in chosen_rows(["mean of the two"], probes=True)]
    assert names == [REFERENCE, BY_AREA, WIDE, "mean of the two models above"]
    assert not any(row.is_slow for row in chosen_rows([], probes=True))
    assert len(chosen_rows([], probes=False)) == len(ROWS)
