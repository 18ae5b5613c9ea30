"""Spark as an engine, on a cluster of its own: a master and two workers."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from doctogres.cleaning.evidence import Measuring
from doctogres.errors import ParameterError
from doctogres.presets import load_preset
from doctogres.records.slide import Slide, done, slides_of
from doctogres.records.spark import Spark, SparkError
from doctogres.slides.cohort import find_slides
from doctogres.slides.table import CohortTable
from doctogres.stages.clean import clean
from doctogres.tracking.places import fetch
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


def rows(work: Measuring, made: Any) -> list[dict[str, Any]]:
    return [one.to_row(work.record) for one in made]


def test_a_cluster_gives_the_records_of_one_machine_and_a_bad_slide_is_a_row(
    two_workers: Cluster, small_cohort: Path, slides: list[Slide]
) -> None:
    bad = [
        replace(slides[0], slide_id="no_picture", image="train_labels.csv"),
        replace(slides[1], slide_id="gone", mask="gone.png"),
    ]
    given, work = [*slides[:20], *bad, *slides[20:]], Measuring(small_cohort)
    here = rows(work, done(work, given))
    there = rows(work, Spark(two_workers.master)(work, given))
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
    here = rows(work, done(work, slides))
    for attack in range(2):
        (folder := tmp_path / str(attack)).mkdir()
        with cluster(folder) as attacked:
            held: list[int] = []

            def strike(attacked: Cluster = attacked, held: list[int] = held) -> None:
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
            there = rows(work, Spark(attacked.master)(work, slides))
            striker.join()
            assert len(held) > 1
            assert attacked.processes["worker1"].wait(10) == -signal.SIGKILL
        assert there == here


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


def test_without_java_the_remedy_is_named(
    slides: list[Slide], small_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr("doctogres.records.spark.shutil.which", lambda name: None)
    with pytest.raises(ParameterError, match="no Java on this machine; install Java 17"):
        list(Spark("local[1]")(Measuring(small_cohort), slides[:3]))
