"""Ends a command that nobody waits for any more: SIGTERM and the end of `mlflow run` count as Ctrl-C."""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import psutil

from doctogres.launcher import Launch

POLL: Final = 1.0  # seconds between two looks at the processes above this one
PATIENCE: Final = b"still storing what is kept; Ctrl-\\ ends the command at once\n"
_held: list[int] = []  # one entry per block that must not be interrupted
_waiting: list[int] = []  # signals that came during such a block


@contextmanager
def interruptible(launch: Launch | None = None) -> Iterator[None]:
    """Raises KeyboardInterrupt in the block on Ctrl-C, on SIGTERM, and when the `mlflow run` that started this process ends.

    Once it is raised, further signals do not break off what is done about it: a terminal sends Ctrl-C to every process,
    upon which `mlflow run` also sends SIGTERM to this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A shell starts background commands with Ctrl-C ignored.
    signals = [signal.SIGTERM, *([signal.SIGINT] if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN else [])]
    before = {number: signal.signal(number, _interrupt) for number in signals}
    done = threading.Event()
    if launch:
        threading.Thread(target=_watch, args=(launch.processes, done), daemon=True).start()
    try:
        yield
    finally:
        done.set()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def held() -> Iterator[None]:
    """Lets interruptions wait until the block ends: half-imported libraries cannot record that a run was interrupted."""
    _held.append(1)
    try:
        yield
    finally:
        _held.pop()
        if _waiting and not _held:
            _waiting.clear()
            raise KeyboardInterrupt


def _interrupt(number: int, frame: Any) -> None:
    if _held:
        _waiting.append(number)
    elif _is_interrupted():
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, PATIENCE)  # print() might interrupt itself
    else:
        raise KeyboardInterrupt


def _is_interrupted() -> bool:
    """Whether the main thread is handling an interruption, anywhere down its stack."""
    error = sys.exception()
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def _watch(above: tuple[psutil.Process, ...], done: threading.Event) -> None:
    while not done.wait(POLL):
        if not all(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in above):
            if os.name == "posix":
                os.kill(os.getpid(), signal.SIGTERM)  # also wakes a main thread that waits
            else:
                _thread.interrupt_main(signal.SIGTERM)
            return
