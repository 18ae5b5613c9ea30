"""A new SQLite store, made by one command while the others wait. Imports MLflow only when there is none yet."""

import os
from pathlib import Path
from typing import Final

import sqlalchemy
from filelock import FileLock
from sqlalchemy.exc import SQLAlchemyError

from doctogres.addresses import check_environment
from doctogres.errors import TrackingError
from doctogres.files import replacing

DEFAULT_STORE: Final = "sqlite:///mlflow.db"


def store_uri() -> str:
    """The tracking store's address: the environment's, else `mlflow.db` in the working directory.

    Raises:
        ParameterError: it holds a password.
    """
    check_environment()
    return os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_STORE


def make_store() -> None:
    """Makes the database of the store if it is a SQLite file that does not exist; leaves any other store alone.

    MLflow makes its tables without a lock, so several commands that start on a new store break each other's. Here the
    file gets its name when it is complete, so a killed command leaves no half of a store either.

    Raises:
        TrackingError: nothing can be written there.
    """
    path = database()
    if path is None or path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.exists():
                with replacing(path) as partial:
                    _fill(partial)
    except (OSError, SQLAlchemyError) as error:
        raise TrackingError(
            f"the tracking store {path} cannot be made: {' '.join(str(error).split())}; check MLFLOW_TRACKING_URI"
        ) from error


def database() -> Path | None:
    """The file of a SQLite store; None for another store."""
    if not store_uri().startswith("sqlite:"):
        return None
    name = sqlalchemy.make_url(store_uri()).database
    return Path(name).absolute() if name and name != ":memory:" else None


def _fill(path: Path) -> None:
    """Makes MLflow's tables in a new file, with its own default place for artifacts."""
    from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(f"sqlite:///{path}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)  # type: ignore[no-untyped-call]
    store.engine.dispose()
