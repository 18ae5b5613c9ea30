"""The model as a column of Spark's."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from tests.serving.drawn_requests import files
from tests.serving.test_logged import COLUMNS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    if not (shutil.which("java") or "JAVA_HOME" in os.environ):
        pytest.skip("needs Java: apt-get install default-jre-headless")
    folder = tmp_path_factory.mktemp("spark")
    with pytest.MonkeyPatch.context() as patcher:
        patcher.setenv("PYSPARK_PYTHON", sys.executable)
        patcher.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        session = (
            SparkSession.builder.master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.warehouse.dir", str(folder))
            .config("spark.sql.execution.arrow.maxRecordsPerBatch", "2")
            .getOrCreate()
        )
        yield session
        session.stop()


def test_spark_gets_the_same_columns_and_answers(
    champion: tuple[str, Path], spark: SparkSession, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [{**files(seed), "slide_id": f"slide {seed}"} for seed in range(3)]
    rows += [
        {"slide_id": "bare", "image": files(1)["image"], "mask": None},
        {**rows[0], "slide_id": "bad", "image": b"?"},
    ]
    table = pd.DataFrame(rows)
    table.to_parquet(tmp_path / "slides.parquet")
    expected = mlflow.pyfunc.load_model(str(champion[1])).predict(table, params={"on_error": "report"})
    model = mlflow.pyfunc.spark_udf(spark, str(champion[1]), env_manager="local", params={"on_error": "report"})
    slides = spark.read.parquet(str(tmp_path / "slides.parquet"))
    answered = slides.withColumn("answer", model(F.struct("image", "mask", "slide_id"))).select("answer.*")
    assert answered.columns == COLUMNS
    found = {row["slide_id"]: row.asDict(recursive=True) for row in answered.collect()}
    assert answered.count() == len(found) == len(expected)
    for answer in expected:
        row = found[answer["slide_id"]]
        for name in ("label", "error", "mask_source", "overlay"):  # MLflow 3.17 makes 'nan' of a null among texts
            assert (None if row[name] == "nan" else row[name]) == answer[name]
        for name in ("abstained", "n_patches", "n_dropped", "model_version", "reasons", "warnings"):
            assert row[name] == answer[name]
        assert row["confidence"] == pytest.approx(answer["confidence"], abs=1e-5)
        assert row["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)
        for patch, other in zip(row["patches"], answer["patches"], strict=True):
            assert patch.pop("probabilities") == pytest.approx(other.pop("probabilities"), abs=1e-5)
            assert patch == other
