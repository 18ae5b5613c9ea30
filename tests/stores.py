"""MLflow stores for the tests: empty, connected, and out of everybody's way afterwards; and what is made only once."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

# What a test must not take over from whoever started it.
FOREIGN = ("MLFLOW_", "DOCTOGRES_", "VIRTUAL_ENV")


def plain_environment() -> dict[str, str]:
    """This process's environment without a word about MLflow or doctogres, for a process that a test starts."""
    return {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder that the first of the workers makes and all of them read."""
    own = factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder, done = shared / name, shared / f"{name}.done"
    with FileLock(shared / f"{name}.lock"):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed on it
            make(folder)
            done.touch()
    return folder


def new_store(empty_store: Path, folder: Path) -> str:
    """An empty SQLite store in the folder; its address."""
    shutil.copy(empty_store, folder / "mlflow.db")
    return f"sqlite:///{folder}/mlflow.db"


def used_models(run_id: str) -> list[str]:
    """The ids of the logged models that are inputs of a run."""
    import mlflow

    inputs = mlflow.get_run(run_id).inputs
    return [used.model_id for used in inputs.model_inputs] if inputs else []


def measured(model_id: str) -> dict[str, Any]:
    """The metrics on the page of a logged model, by name."""
    import mlflow

    return {metric.key: metric for metric in mlflow.get_logged_model(model_id).metrics or []}


@contextmanager
def connected(address: str, folder: Path, patcher: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes the folder the working directory, with its own workspace, and connects MLflow to the store.

    The patcher undoes all of it; no run stays open after the block.
    """
    import mlflow  # seconds that most tests have no use for

    from doctogres.tracking.code import Changes
    from doctogres.tracking.store import connect

    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME"):
        patcher.delenv(name, raising=False)
    patcher.chdir(folder)
    patcher.setenv("MLFLOW_TRACKING_URI", address)
    patcher.setenv("DOCTOGRES_WORKSPACE", str(folder / "workspace"))
    # The code counts as committed, whoever works on it at that moment.
    patcher.setattr("doctogres.tracking.runs.code_changes", lambda: Changes(b""))
    patcher.setenv("MLFLOW_EXPERIMENT_ID", "0")  # so that what connect() sets is undone with the rest
    connect()
    try:
        yield
    finally:
        while mlflow.active_run():
            mlflow.end_run()
