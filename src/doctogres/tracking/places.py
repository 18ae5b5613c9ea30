"""Where the store keeps artifacts, and whether this machine has that place.

A store records the whole path of an experiment's artifacts when the experiment begins. MLflow does not notice when the
folder is moved, copied or read from another machine: it finds nothing, or goes on writing to the old place.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import mlflow
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from doctogres.addresses import masked
from doctogres.errors import TrackingError, UpstreamError
from doctogres.files import closed_above

SQLITE: Final = "sqlite:///"
REMEDY: Final = (
    "put the folder back (or a link there), change the recorded paths as docs/your-data.md shows, or begin a new experiment "
    "with MLFLOW_EXPERIMENT_NAME=NAME (`mlflow run --experiment-name NAME`)"
)


def fetch(uri: str) -> Path:
    """The local path of an artifact, a folder of artifacts or a model.

    A model given by its id is fetched from where it lies: by its `models:/` address, MLflow would overwrite a file in its
    folder, in which a server may be reading at that moment which version it serves. An artifact of a run, too: by its `runs:/`
    address, MLflow would copy it even from this disk, and call a bucket that refuses us a path that does not exist.

    Raises:
        UpstreamError: it is not there; where its place is not on this machine, the message says so.
    """
    places = [uri]
    try:
        if uri.startswith("models:/m-") and uri.count("/") == 1:
            places = [_recorded(uri)]
        elif uri.startswith("runs:/") and (inner := uri.removeprefix("runs:/").partition("/")[2]):
            places = [f"{_recorded(uri).rstrip('/')}/{inner}", uri]  # a model of the run is where only MLflow finds it
        return _first_there(places)
    except (MlflowException, OSError) as error:
        raise UpstreamError(masked(f"{uri} could not be fetched ({_reason(error)}){_absence(uri)}")) from error


def _first_there(uris: Sequence[str]) -> Path:
    """What lies at the first of these addresses that has something; if none has, the first one's error is raised."""
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uris[0]))
    except (MlflowException, OSError):
        for uri in uris[1:]:
            with suppress(MlflowException, OSError):
                return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
        raise


def _reason(error: Exception) -> str:
    """The first line of an error that says something: MLflow begins a list of failures with a headline for each file."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("The following failures", "#####"))]
    return next(iter(said or lines), type(error).__name__)


def check_place(experiment: Experiment) -> None:
    """Refuses an experiment whose artifacts are not where the store says, before anything is read or written.

    Raises:
        TrackingError: the store was moved, copied, or belongs to another machine.
    """
    folder = _local(experiment.artifact_location)
    if folder is None:
        return
    store, home = store_address(), _database_folder()
    records = f"the store {store} keeps the artifacts of the experiment `{experiment.name}` in {folder}"
    if home is not None and folder.resolve().is_relative_to(home):
        return
    if home is not None and (copy := _same_beside(folder, home)):
        raise TrackingError(f"{records}, but they lie in {copy}: the store was moved or copied; {REMEDY}")
    if closed_above(folder):
        raise TrackingError(
            f"{records}, where this machine may not write; mount that folder here, or let the server pass the files on: "
            "`mlflow server --artifacts-destination FOLDER`"
        )
    if not folder.is_dir() and ((_other_machine() and not folder.parent.is_dir()) or _has_results(experiment)):
        raise TrackingError(
            f"{records}, which is not there: the store was moved, or belongs to another machine; {REMEDY}"
        )


def store_folders() -> list[Path]:
    """Where on this machine's disks the store writes: its artifacts, and its database if that is a file."""
    artifacts = _local(mlflow.get_artifact_uri()) if mlflow.active_run() else None
    return [folder for folder in (artifacts, _database_folder()) if folder]


def store_address() -> str:
    """The tracking store's address, without a password."""
    return masked(mlflow.get_tracking_uri())


def _absence(uri: str) -> str:
    """What there is to say of a place that this machine does not have; empty where it has it or nothing is known."""
    try:
        folder = _local(_recorded(uri))
    except MlflowException:  # the run or the model itself is unknown, which the first reason says
        return ""
    if folder is None or folder.exists():
        return ""
    return f"; the store {store_address()} keeps it in {folder}, which is not there: {REMEDY}"


def _recorded(uri: str) -> str:
    """Where the store says that the files of a `runs:/` or `models:/` address lie; another address is its own answer."""
    client = MlflowClient()
    kind, _, rest = uri.partition(":/")
    name, _, inner = rest.partition("/")
    if kind == "runs":
        return str(client.get_run(name).info.artifact_uri)
    if kind != "models":
        return uri
    if "@" in rest:
        source = str(client.get_model_version_by_alias(*rest.split("@", 1)).source)
    else:
        source = uri if name.startswith("m-") else str(client.get_model_version(name, inner).source)
    logged = source.removeprefix("models:/") if source.startswith("models:/m-") else ""
    return str(client.get_logged_model(logged.partition("/")[0]).artifact_location) if logged else source


def _local(location: str) -> Path | None:
    """The folder of a location on a disk; None for a server's or a cloud's."""
    local = is_local_uri(location, is_tracking_or_registry_uri=False)  # type: ignore[no-untyped-call]
    return Path(local_file_uri_to_path(location)) if local else None  # type: ignore[no-untyped-call]


def _database_folder() -> Path | None:
    """The folder of a SQLite store; None for any other store."""
    address = mlflow.get_tracking_uri()
    return Path(address.removeprefix(SQLITE)).resolve().parent if address.startswith(SQLITE) else None


def _other_machine() -> bool:
    """Whether the store is a server that runs on another machine."""
    address = urlsplit(mlflow.get_tracking_uri())
    return address.scheme in ("http", "https") and address.hostname not in ("localhost", "127.0.0.1", "::1")


def _same_beside(folder: Path, home: Path) -> Path | None:
    """The folder of the same name (`mlruns/1`) beside the database, where it is another one."""
    found = home.joinpath(*folder.parts[-2:])
    return found if found.is_dir() and not (folder.is_dir() and found.samefile(folder)) else None


def _has_results(experiment: Experiment) -> bool:
    finished = "attributes.status = 'FINISHED' and tags.`doctogres.result` != ''"
    return bool(MlflowClient().search_runs([experiment.experiment_id], finished, max_results=1))
