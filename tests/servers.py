"""Servers that a test starts, and requests to them."""

import base64
import json
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parent.parent


def heed_ctrl_c() -> None:
    """Undoes what a shell does to commands in the background, such as these tests: they ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], url: str, log: Path, environment: dict[str, str], *, seconds: int) -> Iterator[None]:
    """Starts a server and waits until `url` answers.

    MLflow's own starts without the processes for its jobs, each of which imports all of MLflow: doctogres has none of them.
    """
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | environment
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        for _ in range(5 * seconds):
            try:
                urllib.request.urlopen(url, timeout=5)
                break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, log.read_text()[-3000:]
                time.sleep(0.2)
        else:
            pytest.fail(log.read_text()[-3000:])
        yield
    finally:
        process.terminate()
        process.wait(30)


def json_line(printed: str) -> dict[str, Any]:
    """The result that an entry point prints before its last words."""
    found: dict[str, Any] = json.loads([line for line in printed.splitlines() if line.startswith('{"stage"')][-1])
    return found


def post(address: str, body: bytes, kind: str) -> dict[str, Any]:
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": kind})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    with urllib.request.urlopen(request, timeout=120) as response:
        answer: dict[str, Any] = json.loads(response.read(), parse_constant=refuse)
    return answer


def as_json(*rows: Mapping[str, object], **params: object) -> dict[str, object]:
    """The JSON of a request: bytes become base64."""
    encoded = [
        {name: base64.b64encode(value).decode() if isinstance(value, bytes) else value for name, value in row.items()}
        for row in rows
    ]
    return {"dataframe_records": encoded} | ({"params": params} if params else {})


def processes_below() -> Iterator[tuple[psutil.Process, list[str]]]:
    """The processes started by this one, directly or not, with the words of their commands; none that has ended."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # also a zombie
            yield process, process.cmdline()
