"""The `mlflow run` that started this process, and the command that a person types to start it again."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from doctogres.addresses import without_password

RUN_VARIABLE: Final = "MLFLOW_RUN_ID"  # set by `mlflow run`; removed once a stage has taken that run over
INSTALLED: Final = "doctogres"  # the command of an installed package


@dataclass(frozen=True)
class Launch:
    """The `mlflow run` that started this process.

    Attributes:
        run_id: the run that it opened.
        processes: from the one above this process up to it; none if it is not a command of this machine, but a call of
            MLflow's Python interface, for example.
        typed: the words of the command that a person typed, itself or `make`.
    """

    run_id: str
    processes: tuple[psutil.Process, ...] = ()
    typed: tuple[str, ...] = ()

    @property
    def command(self) -> psutil.Process | None:
        """The process of `mlflow run`."""
        return self.processes[-1] if self.processes else None

    @property
    def folder(self) -> Path | None:
        """Where `mlflow run` was typed: paths are relative to it, not to the clone of the project in which MLflow starts us."""
        try:
            return Path(self.command.cwd()) if self.command else None
        except psutil.Error:  # another user's, for example
            return None


def find_launch() -> Launch | None:
    """What started this process, if it was MLflow; to be asked before a stage takes its run over, and while it lives."""
    if not (run_id := os.environ.get(RUN_VARIABLE)):
        return None
    above = psutil.Process().parents()
    words = [_words(process) for process in above]
    for number, command in enumerate(words):
        if _is_mlflow_run(command):
            maker = words[number + 1] if number + 1 < len(words) else []
            by_make = bool(maker) and Path(maker[0]).name == "make"
            return Launch(run_id, tuple(above[: number + 1]), tuple(maker if by_make else command))
    return Launch(run_id)


def others_run() -> bool:
    """Whether an `mlflow run` other than the one above this process runs on this machine, whoever started it."""
    own = {process.pid for process in psutil.Process().parents()}
    return any(process.pid not in own and _is_mlflow_run(_words(process)) for process in psutil.process_iter())


def typed_command(launch: Launch | None, arguments: list[str]) -> str:
    """The command that started this process as one would type it, without the passwords of the addresses in it.

    Args:
        launch: what started it.
        arguments: this process's own, the path of its module first.
    """
    program = Path(arguments[0])
    words = [program.name] if program.name == INSTALLED else ["python", "-m", f"entrypoints.{program.stem}"]
    words += arguments[1:]
    if launch and launch.typed:
        words = list(launch.typed)
    if _is_mlflow_run(words):
        words = ["mlflow", *words[words.index("run") :]]
    return shlex.join(map(without_password, words))


def _is_mlflow_run(words: list[str]) -> bool:
    return "run" in words and any("mlflow" in word for word in words[: words.index("run")])


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
