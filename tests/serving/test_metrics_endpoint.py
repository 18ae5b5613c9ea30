"""The metrics of a server's workers: processes of their own, as uvicorn starts them."""

import multiprocessing
import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from doctogres.errors import ParameterError
from doctogres.liveness import process_name
from doctogres.model.classifier import SlideClassifier
from doctogres.serving import metrics
from doctogres.serving.answer_log import AnswerLog
from doctogres.serving.contract import RequestError
from doctogres.serving.metrics import Metrics, server_folder
from doctogres.serving.monitoring import Monitoring
from doctogres.serving.pyfunc import SlideModel
from tests.disks import small_disk
from tests.servers import free_port
from tests.serving.drawn_requests import files

MODEL = {"model_version": "doctogres/3", "model_id": "m-1"}
REQUEST = {
    "status": 200,
    "seconds": 0.2,
    "waited": 0.1,
    "slides": 3,
    "not_sure": 1,
    "refusals": {"field": 1},
    "lost": 0,
}
Samples = dict[tuple[str, frozenset[str]], float]


def samples(text: str) -> Samples:
    """The values by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def scraped(port: int) -> Samples:
    """What the port answers, once somebody does."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
                return samples(response.read().decode())
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail("nobody answers on the port")


def work(pipe: Connection) -> None:
    """A worker: says whether it counts, then counts a request whenever it is told to."""
    metrics.RETRY = 0.1  # type: ignore[misc]
    found = Metrics.from_environment(MODEL)
    pipe.send(found is not None)
    while pipe.recv():
        assert found
        found.count(**REQUEST)  # type: ignore[arg-type]
        pipe.send(True)


class Worker:
    """A process that a test tells what to do."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=work, args=[other], daemon=True)
        self.process.start()
        other.close()
        self.counts: bool = self.pipe.recv()

    def count(self) -> None:
        self.pipe.send(True)
        assert self.pipe.recv()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """A port for the workers, whose temporary files are in the test's folder."""
    found = free_port()
    monkeypatch.setenv("DOCTOGRES_METRICS_PORT", str(found))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return found


@pytest.fixture
def start() -> Iterator[Callable[[], Worker]]:
    """Starts workers, which end with the test."""
    started: list[Worker] = []

    def one() -> Worker:
        started.append(Worker())
        return started[-1]

    yield one
    for worker in started:
        worker.kill()


def requests(found: Samples) -> float:
    return found["doctogres_requests_total", frozenset(["200"])]


@pytest.mark.slow
def test_one_port_answers_for_all_workers_and_outlives_each(
    port: int, start: Callable[[], Worker], tmp_path: Path
) -> None:
    first, second = start(), start()
    first.count()
    second.count()
    second.count()
    found = scraped(port)
    none: frozenset[str] = frozenset()
    assert requests(found) == 3
    assert found["doctogres_slides_total", none] == 9
    assert found["doctogres_slides_not_sure_total", none] == 3
    assert found["doctogres_refusals_total", frozenset(["field"])] == 3
    assert found["doctogres_request_duration_seconds_bucket", frozenset(["0.1"])] == 0
    assert found["doctogres_request_duration_seconds_bucket", frozenset(["0.25"])] == 3
    assert found["doctogres_request_duration_seconds_sum", none] == pytest.approx(0.6)
    ((_, labels),) = [key for key in found if key[0] == "doctogres_model_info"]
    assert {"doctogres/3", "m-1"} < labels
    (folder,) = [path for path in tmp_path.iterdir() if path.name.endswith("-metrics")]
    assert folder.stat().st_mode & 0o777 == 0o700
    first.kill()
    second.count()
    assert requests(scraped(port)) == 4  # those of the dead worker included
    third = start()
    second.kill()
    third.count()
    assert requests(scraped(port)) == 5
    third.kill()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)


@pytest.mark.slow
def test_a_port_that_another_program_has_is_taken_when_it_is_free(
    port: int, start: Callable[[], Worker], capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        worker = start()
        worker.count()
        printed = ""
        for _ in range(300):
            printed += capfd.readouterr().err
            if "is the port in use?" in printed:
                break
            time.sleep(0.1)
        assert f"DOCTOGRES_METRICS_PORT=127.0.0.1:{port}: no metrics yet" in printed
        time.sleep(1)
    assert requests(scraped(port)) == 1
    assert (printed + capfd.readouterr().err).count("no metrics yet") == 1


@pytest.mark.slow
def test_a_full_disk_costs_the_metrics_and_no_worker(
    port: int, start: Callable[[], Worker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", kilobytes=1024) as disk:
        monkeypatch.setenv("TMPDIR", str(disk.path))
        worker = start()
        disk.fill()
        for _ in range(3):
            worker.count()
        assert requests(scraped(port)) == 3
        assert not start().counts
        assert requests(scraped(port)) == 3


@pytest.mark.parametrize(
    ("text", "place"),
    [("", None), ("9108", ("127.0.0.1", 9108)), ("0.0.0.0:80", ("0.0.0.0", 80)), ("[::1]:9108", ("::1", 9108))],
)
def test_a_port_may_have_a_host(text: str, place: tuple[str, int] | None) -> None:
    assert metrics._place(text) == place


@pytest.mark.parametrize("text", ["0", "65536", "http", ":9108", "host:", "9108/metrics", "-1"])
def test_what_is_no_port_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCTOGRES_METRICS_PORT", text)
    with pytest.raises(ParameterError, match="DOCTOGRES_METRICS_PORT is .*; give a port"):
        Metrics.from_environment(MODEL)


def test_without_a_port_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCTOGRES_METRICS_PORT", raising=False)
    assert Metrics.from_environment(MODEL) is None


def test_a_folder_belongs_to_its_server_and_goes_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    ended = subprocess.Popen(["sleep", "60"])
    name = process_name(ended.pid)
    ended.kill()
    ended.wait()
    (tmp_path / f"doctogres-{name}-metrics").mkdir()
    own = server_folder()
    assert list(tmp_path.iterdir()) == [own]
    assert server_folder() == own
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setenv("DOCTOGRES_METRICS_PORT", "9108")
    assert Metrics.from_environment(MODEL) is None
    assert "belongs to another user" in caplog.text


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Metrics, Callable[[], Samples]]:
    """Metrics of this process, and how to read them."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    monkeypatch.setattr(values, "ValueClass", None)
    folder = tmp_path / "metrics"
    folder.mkdir()

    def read() -> Samples:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(folder))
        return samples(generate_latest(registry).decode())

    return Metrics(folder, MODEL), read


def test_what_the_model_did_is_counted(
    classifier: SlideClassifier, unsure: SlideClassifier, counted: tuple[Metrics, Callable[[], Samples]], tmp_path: Path
) -> None:
    model, (found, read) = SlideModel(), counted
    model.classifier = classifier
    model.model_version, model.model_id = MODEL.values()
    model.monitoring = Monitoring(MODEL, AnswerLog(tmp_path / "missing" / "log"), found)
    bad = {**files(1), "image": b"hello"}

    def ask(*rows: dict[str, Any], **params: object) -> None:
        model.predict(None, pd.DataFrame(list(rows)), params=params)

    none: frozenset[str] = frozenset()
    assert (read()["doctogres_requests_total", frozenset(["200"])], read()["doctogres_slides_total", none]) == (0, 0)
    ask(identity=True)
    ask(files(1), bad, files(2), on_error="report")
    for rows in ([files(1), bad], []):
        with pytest.raises(RequestError):
            ask(*rows)
    after = read()
    before_unsure = after["doctogres_slides_not_sure_total", none]
    assert after["doctogres_requests_total", frozenset(["200"])] == 1
    assert after["doctogres_requests_total", frozenset(["400"])] == 2
    assert after["doctogres_slides_total", none] == 2
    assert after["doctogres_refusals_total", frozenset(["unreadable_image"])] == 2
    assert after["doctogres_refusals_total", frozenset(["no_slides"])] == 1
    assert after["doctogres_request_duration_seconds_count", none] == 3
    waited = after["doctogres_request_wait_seconds_sum", none]
    assert 0 <= waited <= after["doctogres_request_duration_seconds_sum", none]
    assert after["doctogres_request_wait_seconds_count", none] == 3
    assert after["doctogres_answer_log_lost_rows_total", none] == 4
    model.classifier = unsure
    ask(files(1), files(2))
    assert read()["doctogres_slides_not_sure_total", none] == before_unsure + 2
