"""Where a run's table came from, as it is recorded."""

from pathlib import Path

import mlflow
import pandas as pd
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
