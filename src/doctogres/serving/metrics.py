"""Prometheus metrics of all workers of a server, on a port of their own; docs/operations.md lists them.

Every worker counts in files of its own, in a folder that belongs to the server (prometheus_client's multiprocess mode). The
worker that holds the lock of that folder answers for all of them; when it dies, the system gives lock and port to another.
"""

import logging
import multiprocessing
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from doctogres import __version__
from doctogres.errors import DiskFullError, ParameterError
from doctogres.files import TEMPORARY, is_own, replacing, sweep, temporary_folder
from doctogres.liveness import process_name
from doctogres.locks import lock

PORT_VARIABLE: Final = "DOCTOGRES_METRICS_PORT"
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own
KINDS: Final = ("counter", "histogram", "gauge_max")  # of metrics, each with a file per worker
FILE_SIZE: Final = 1 << 16  # bytes, enough for 400 series
# of a request: the histogram's buckets
SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
RETRY: Final = 5.0  # seconds
logger: Final = logging.getLogger(__name__)


class Metrics:
    """Counts the requests of this worker."""

    def __init__(self, folder: Path, model: Mapping[str, str]):
        """Begins to count in a folder, for a model with its `model_version` and `model_id`.

        Raises:
            OSError, DiskFullError: its files cannot be written.
        """
        allocate(folder)
        os.environ[FOLDER_VARIABLE] = str(folder)
        from prometheus_client import Counter, Gauge, Histogram, values

        # Not left to the environment, which the library has read if something imported it before.
        values.ValueClass = values.MultiProcessValue()  # type: ignore[no-untyped-call]

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"doctogres_{name}", text, labels, registry=None)

        self._requests = counter("requests", "Requests by HTTP status", "status")
        self._slides = counter("slides", "Slides that were answered")
        self._not_sure = counter("slides_not_sure", "Slides that were answered, but not surely")
        self._refusals = counter("refusals", "Refused slides, and requests refused as a whole", "kind")
        self._lost = counter("answer_log_lost_rows", "Rows that the answer log could not take")
        self._seconds = Histogram(
            "doctogres_request_duration_seconds", "Time in the model of a request", buckets=SECONDS, registry=None
        )
        self._waited = Histogram(
            "doctogres_request_wait_seconds", "Time in line for the networks", buckets=SECONDS, registry=None
        )
        labels = dict(model) | {"doctogres": __version__}
        info = Gauge("doctogres_model_info", "The served model", list(labels), registry=None, multiprocess_mode="max")
        info.labels(**labels).set(1)
        self._requests.labels("200")  # so that it is there, as 0, before the first request

    @classmethod
    def from_environment(cls, model: Mapping[str, str]) -> Self | None:
        """The metrics, and whoever answers for them, if the environment names a port.

        Raises:
            ParameterError: it is not a port.
        """
        if (place := _place(os.environ.get(PORT_VARIABLE, "").strip())) is None:
            return None
        try:
            folder = server_folder()
            metrics = cls(folder, model)
        except (OSError, DiskFullError) as error:
            logger.warning("%s: no metrics, because their files cannot be written: %s", PORT_VARIABLE, error)
            return None
        threading.Thread(target=answer_scrapes, args=(folder, *place), name="metrics", daemon=True).start()
        return metrics

    def count(
        self,
        *,
        status: int,
        seconds: float,
        waited: float,
        slides: int,
        not_sure: int,
        refusals: Mapping[str, int],
        lost: int,
    ) -> None:
        """Counts a request; see the metrics for what the numbers are."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)
        self._waited.observe(waited)
        self._slides.inc(slides)
        self._not_sure.inc(not_sure)
        self._lost.inc(lost)
        for kind, number in refusals.items():
            self._refusals.labels(kind).inc(number)


def server_folder() -> Path:
    """The folder of this process's server, which the workers of no other server share; those of dead servers are removed.

    Raises:
        OSError: it cannot be made, or belongs to another user.
    """
    place = temporary_folder()
    sweep(place)
    parent = multiprocessing.parent_process()  # uvicorn's, if there are several workers
    folder = place / f"{TEMPORARY}{process_name(parent.pid if parent else None)}-metrics"
    folder.mkdir(0o700, exist_ok=True)
    if not is_own(folder):
        raise PermissionError(f"{folder} belongs to another user")
    return folder


def allocate(folder: Path) -> None:
    """Makes this process's files at their full size: a page that a full disk cannot hold would kill the process (SIGBUS).

    They get their names when they are complete, because an empty file would fail every scrape.
    """
    for kind in KINDS:
        path = folder / f"{kind}_{os.getpid()}.db"
        if path.exists():  # of a dead worker that had the same id: its numbers still count
            continue
        with replacing(path) as partial, partial.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, FILE_SIZE)
            else:  # macOS, Windows
                file.write(bytes(FILE_SIZE))


def answer_scrapes(folder: Path, host: str, port: int) -> None:
    """Waits until no other worker answers for the folder, then starts a server for the sum of all workers' metrics."""
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.multiprocess import MultiProcessCollector

    held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)  # never closed: the system does it
    lock(held, wait=True)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    warned = False
    while True:
        try:
            start_http_server(port, addr=host, registry=registry)
            return
        except OSError as error:  # another program has the port
            if not warned:
                logger.warning("%s=%s:%d: no metrics yet (%s); is the port in use?", PORT_VARIABLE, host, port, error)
            warned = True
            time.sleep(RETRY)


def _place(text: str) -> tuple[str, int] | None:
    """Host and port of `9108`, `0.0.0.0:9108` or `[::]:9108`; None of an empty text."""
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536 or (not host and text != port):
        raise ParameterError(f"{PORT_VARIABLE} is {text!r}; give a port, for example 9108, or HOST:PORT")
    return host.strip("[]") or "127.0.0.1", int(port)
