"""Ends a command that nobody waits for any more: SIGTERM and the end of `mlflow run` count as Ctrl-C."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psutil

POLL: Final = 1.0  # seconds between two looks at the processes above this one


@contextmanager
def interruptible() -> Iterator[None]:
    """Raises KeyboardInterrupt in the block on SIGTERM, and when the `mlflow run` that started this process ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    done = threading.Event()
    if above := launcher():
        threading.Thread(target=_watch, args=(above, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()
        signal.signal(signal.SIGTERM, before)


def launcher() -> list[psutil.Process]:
    """The processes above this one up to the `mlflow run` that started it; empty if none did."""
    if "MLFLOW_RUN_ID" not in os.environ:
        return []
    found = []
    for process in psutil.Process().parents():
        found.append(process)
        try:
            words = process.cmdline()
        except psutil.Error:
            return []
        if "run" in words and any("mlflow" in word for word in words[: words.index("run")]):
            return found
    return []


def _watch(above: list[psutil.Process], done: threading.Event) -> None:
    while not done.wait(POLL):
        if not all(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in above):
            os.kill(os.getpid(), signal.SIGTERM)
            return
