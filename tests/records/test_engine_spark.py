"""Spark as an engine, on a cluster of its own: a master and two workers."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
import pytest

from doctogres.cleaning.evidence import Measuring
from doctogres.errors import ParameterError
from doctogres.presets import load_preset
from doctogres.records.slide import HashedFile, Slide, Threads, slides_of
from doctogres.records.spark import Spark, SparkError
from doctogres.slides.cohort import find_slides
from doctogres.slides.table import CohortTable
from doctogres.stages.clean import clean
from doctogres.tracking.places import fetch
from entrypoints.reference import ROOT
from tests.spark_cluster import Cluster, cluster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def local_only() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patcher:
        patcher.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        yield


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(scope="module")
def slides(small_cohort: Path) -> list[Slide]:
    return slides_of(find_slides(small_cohort))


def rows(made: Iterable[pa.RecordBatch]) -> list[dict[str, Any]]:
    return [row for batch in made for row in batch.to_pylist()]


def test_a_cluster_gives_the_records_of_one_machine_and_a_bad_slide_is_a_row(
    two_workers: Cluster, small_cohort: Path, slides: list[Slide]
) -> None:
    bad = [
        replace(slides[0], slide_id="no_picture", image="train_labels.csv"),
        replace(slides[1], slide_id="gone", mask="gone.png"),
    ]
    given, work = [*slides[:20], *bad, *slides[20:]], Measuring(small_cohort)
    here = rows(Threads()(work, given))
    there = rows(Spark(two_workers.master)(work, given))
    assert there == here
    reasons = {row["slide_id"]: row["record"]["reason"] for row in there}
    assert reasons["no_picture"].startswith("unreadable_image")
    assert reasons["gone"].startswith("unreadable_file")


def test_the_run_is_that_of_one_machine(two_workers: Cluster, small_cohort: Path, store: Path) -> None:
    options: dict[str, Any] = {"data": str(small_cohort), "preset": load_preset("demo"), "seed": 1}
    by_spark = clean(**options, engine="spark", spark_master=two_workers.master)
    assert clean(**options).run_id == by_spark.run_id
    alone = clean(**options, rerun=True)
    one, other = (CohortTable.read(fetch(result.artifacts["cohort"])).rows for result in (by_spark, alone))
    pd.testing.assert_frame_equal(one, other)
    again = clean(**options, engine="spark", spark_master="spark://127.0.0.1:1")  # asks no cluster
    assert again.reused


def test_a_killed_worker_loses_nothing_and_nothing_comes_twice(
    tmp_path: Path, small_cohort: Path, slides: list[Slide]
) -> None:
    work = Measuring(small_cohort)
    here = rows(Threads()(work, slides))
    with cluster(tmp_path) as attacked:
        held: list[int] = []

        def strike() -> None:
            for _ in range(1200):
                running = [one for one in attacked.executors("worker1") if "python" in one.name()]
                if len(running) > 1:  # Spark's daemon and the process that does a task
                    for process in running:
                        os.kill(process.pid, signal.SIGSTOP)  # so that it dies with slides in its hands
                    held.extend(process.pid for process in running)
                    time.sleep(1)
                    attacked.kill("worker1")
                    return
                time.sleep(0.02)

        striker = threading.Thread(target=strike)
        striker.start()
        there = rows(Spark(attacked.master)(work, slides))
        striker.join()
        assert len(held) > 1
        assert attacked.processes["worker1"].wait(10) == -signal.SIGKILL
    assert there == here


@dataclass(frozen=True)
class OfTheTests:
    """Work in a module that executors cannot import."""

    root: Path
    record: ClassVar = HashedFile
    model: ClassVar = None

    def __call__(self, slides: Iterable[Slide], *, workers: int | None = None) -> Iterator[HashedFile]:
        return (HashedFile(slide.slide_id, "") for slide in slides)


def test_a_package_that_executors_lack_is_named(two_workers: Cluster, slides: list[Slide], small_cohort: Path) -> None:
    with pytest.raises(
        SparkError, match="^engine=spark: ModuleNotFoundError: No module named '(tests|test_engine_spark)'$"
    ):
        list(Spark(two_workers.master)(OfTheTests(small_cohort), slides[:2]))


def test_settings_are_read_from_a_file_and_no_port_listens_to_other_machines(tmp_path: Path) -> None:
    (tmp_path / "spark-defaults.conf").write_text("spark.task.cpus 3\n")
    said = """
import sys
from doctogres.records.spark import SparkError, _session
with _session("local[4]", None) as session:
    given = session.sparkContext.getConf()
    print(given.get("spark.task.cpus"), given.get("spark.driver.host"))
try:
    with _session("local[2]", None):
        sys.exit("more than there are")
except SparkError as error:
    print(error)
"""
    environment = os.environ | {"SPARK_CONF_DIR": str(tmp_path), "PYTHONPATH": str(ROOT / "src")}
    environment.pop("SPARK_LOCAL_IP", None)
    done = subprocess.run([sys.executable, "-c", said], env=environment, capture_output=True, text=True, check=True)
    found, refused = done.stdout.splitlines()[-2:]
    assert found in ("3 127.0.0.1", "3 localhost")
    assert "org.apache.spark.SparkException: The number of cores per executor (=2)" in refused


def test_a_folder_that_executors_do_not_have_is_one_sentence(slides: list[Slide], tmp_path: Path) -> None:
    with pytest.raises(
        SparkError, match=r"engine=spark: .*/gone is not there on the machine .* all machines share$"
    ) as caught:
        list(Spark("local[1]")(Measuring(tmp_path / "gone"), slides[:3]))
    assert "\n" not in str(caught.value)


def test_a_cluster_that_is_not_there_is_one_sentence(slides: list[Slide], small_cohort: Path) -> None:
    with pytest.raises(SparkError, match=r"no master of Spark answers at spark_master=spark://127.0.0.1:1 ") as caught:
        list(Spark("spark://127.0.0.1:1")(Measuring(small_cohort), slides[:3]))
    assert "\n" not in str(caught.value)


def test_without_spark_the_remedy_is_named(
    slides: list[Slide], small_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(ParameterError, match="Spark is not installed; run `pip install pyspark`"):
        list(Spark("local[1]")(Measuring(small_cohort), slides[:3]))


def test_without_java_the_remedy_is_named(
    slides: list[Slide], small_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr("doctogres.records.spark.shutil.which", lambda name: None)
    with pytest.raises(ParameterError, match="no Java on this machine; install Java 17"):
        list(Spark("local[1]")(Measuring(small_cohort), slides[:3]))
