"""Where a run's table came from, as it is recorded."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from doctogres.tracking.datasets import log_table, source_of


def test_equal_tables_of_two_sources_keep_their_own(store: Path) -> None:
    table = pd.DataFrame({"slide_id": ["img_0000"], "label": ["a"]})
    sources = ["runs:/first/cohort.parquet", "runs:/second/cohort.parquet"]
    runs = []
    for source in sources:
        with mlflow.start_run() as run:
            log_table(table, name="slides", source=source, context="evaluation")
        runs.append(run.info.run_id)
    assert [source_of(MlflowClient().get_run(run_id)) for run_id in runs] == sources


@pytest.mark.parametrize(
    "said", ["duplicate key value violates unique constraint", "UNIQUE constraint failed: datasets.name"]
)
def test_two_workers_may_log_a_table_at_the_same_time(store: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """The second insertion fails, as another worker's came between MLflow's look-up and its own."""
    logged, real = list[str](), mlflow.log_input

    def late(*given: Any, **options: Any) -> None:
        logged.append(said)
        if len(logged) == 1:
            raise MlflowException(f"(UniqueViolation) {said}")
        real(*given, **options)

    monkeypatch.setattr("mlflow.log_input", late)
    with mlflow.start_run() as run:
        log_table(pd.DataFrame({"a": [1]}), name="slides", source="runs:/first/t.parquet", context="tuning")
    assert source_of(MlflowClient().get_run(run.info.run_id)) == "runs:/first/t.parquet"


def test_another_problem_of_the_store_is_not_hidden(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise MlflowException("the store is down")

    monkeypatch.setattr("mlflow.log_input", broken)
    with mlflow.start_run(), pytest.raises(MlflowException, match="the store is down"):
        log_table(pd.DataFrame({"a": [1]}), name="slides", source="runs:/first/t.parquet", context="tuning")
