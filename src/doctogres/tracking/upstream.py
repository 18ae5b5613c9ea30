"""Resolves the value of a parameter: a run id, a `runs:/` or `models:/` URI, a path or address, or `latest`."""

from dataclasses import dataclass
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from doctogres.catalogue import LATEST, RUN_ID, STAGES
from doctogres.errors import UpstreamError
from doctogres.files import digest_of, file_digest
from doctogres.remote import local
from doctogres.tracking.places import fetch
from doctogres.tracking.runs import PART_TAG, RESULT_TAG, STAGE_TAG, StageResult, finished_runs, result_of


@dataclass(frozen=True)
class Upstream:
    """An artifact of an earlier stage as a local file, and where it came from."""

    path: Path
    uri: str
    run_id: str | None


def latest(stage: str, filters: str = "") -> StageResult:
    """The newest finished run of a stage in the experiment, except runs that are part of another stage.

    Args:
        stage: name of the stage.
        filters: further conditions, in MLflow's search syntax.
    """
    independent = f"tags.`{PART_TAG}` IS NULL"
    runs = finished_runs(stage, f"{independent} and {filters}" if filters else independent)
    if not runs:
        condition = f" with {filters}" if filters else ""
        raise UpstreamError(
            f"latest: there is no finished run of `{stage}`{condition} in this experiment; run "
            f"`mlflow run . -e {stage} --env-manager local` first"
        )
    return result_of(runs[0])


def _run_result(run_id: str, stage: str) -> StageResult:
    try:
        run = MlflowClient().get_run(run_id)
    except MlflowException as error:
        raise UpstreamError(
            f"{run_id}: there is no such run in this tracking store; give an existing run id or `latest`"
        ) from error
    if run.data.tags.get(STAGE_TAG) != stage or RESULT_TAG not in run.data.tags:
        kind = run.data.tags.get(STAGE_TAG, "not doctogres")
        raise UpstreamError(
            f"{run_id}: not a finished run of `{stage}` (stage: {kind}, status: {run.info.status.lower()}); "
            f"give the id of a finished run of `{stage}`"
        )
    return result_of(run)


def _download(uri: str, value: str) -> Path:
    try:
        return fetch(uri)
    except UpstreamError as error:
        raise UpstreamError(f"{value}: {error}") from error


def _existing(path: Path, file: str, value: str) -> Path:
    target = path / file if path.is_dir() else path
    if not target.is_file():
        raise UpstreamError(f"{value}: {target} does not exist; give a run id, a runs:/ address, a path or `latest`")
    return target


def find_artifact(value: str, *, stage: str, name: str, filters: str = "") -> Upstream:
    """The artifact of an earlier stage that a parameter names.

    Args:
        value: `latest`, a run id, `runs:/ID[/PATH]`, or the path or address of a file or folder.
        stage: the stage that writes it.
        name: its name in that stage's result; the catalogue gives its file name in folders and `runs:/ID`.
        filters: see `latest`.

    Raises:
        UpstreamError: the artifact does not exist.
    """
    file = STAGES[stage].artifacts[name]
    if value == LATEST or RUN_ID.fullmatch(value):
        result = latest(stage, filters) if value == LATEST else _run_result(value, stage)
        uri = result.artifacts[name]
        return Upstream(_existing(_download(uri, value), file, value), uri, result.run_id)
    if value.startswith("runs:/"):
        run_id, _, inner = value.removeprefix("runs:/").partition("/")
        uri = f"runs:/{run_id}/{inner or file}"
        return Upstream(_existing(_download(uri, value), file, value), uri, run_id)
    path = _existing(local(value), file, value)
    return Upstream(path, path.resolve().as_uri(), None)


def find_model(value: str) -> str:
    """The address of a model given as `models:/...`, `runs:/...`, a run id of `train`, `latest`, or a folder."""
    if value == LATEST or RUN_ID.fullmatch(value):
        return (latest("train") if value == LATEST else _run_result(value, "train")).artifacts["model"]
    if value.startswith(("models:/", "runs:/")):
        return value
    if ((folder := local(value)) / "MLmodel").is_file():
        return str(folder.resolve())
    raise UpstreamError(
        f"model={value}: not a model folder; give models:/doctogres@champion, a run id of `train`, or `latest`"
    )


def fixed_address(uri: str) -> str:
    """An address that always refers to the same model: an alias, `latest` or a version becomes the model's id.

    Version numbers are reused when a registered model is deleted and registered again; the id `models:/m-...` is not.
    """
    if not uri.startswith("models:/") or uri.startswith("models:/m-"):
        return uri
    client = MlflowClient()
    name, _, version = uri.removeprefix("models:/").partition("@" if "@" in uri else "/")
    try:
        if "@" in uri:
            model_version = client.get_model_version_by_alias(name, version)
        elif version == "latest":
            order = ["version_number DESC"]
            model_version = client.search_model_versions(f"name = '{name}'", order_by=order, max_results=1)[0]
        else:
            model_version = client.get_model_version(name, version)
    except (MlflowException, IndexError) as error:
        raise UpstreamError(
            f"model={uri}: the registry has no such model; run `mlflow run . --env-manager local` or `-e register` first (after "
            "`make demo`, the champion is models:/doctogres-demo@champion)"
        ) from error
    source = str(model_version.source or "")
    return source if source.startswith("models:/m-") else f"models:/{name}/{model_version.version}"


def model_digest(address: str) -> str:
    """The model's identity in a fingerprint: its fixed address, or the digest of a folder's files."""
    folder = Path(address)
    if not folder.is_dir():
        return address
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return digest_of([(str(path.relative_to(folder)), file_digest(path)) for path in files])
