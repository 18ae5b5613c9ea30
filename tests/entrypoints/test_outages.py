"""A store, a bucket or a database that fails in the middle of a stage: one sentence, and the next command goes on."""

import os
import subprocess
import time
from pathlib import Path

import cv2
import psycopg
import pytest
import sqlalchemy.exc
import torch
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from entrypoints.outages import outage
from tests.postgres import USER, postgres_server
from tests.s3 import BUCKET, failing, s3_server
from tests.servers import ROOT
from tests.stores import new_store, plain_environment

EXPIRED = ClientError({"Error": {"Code": "ExpiredToken", "Message": "The provided token has expired."}}, "PutObject")
CLOSED = sqlalchemy.exc.OperationalError("SELECT 1", {}, psycopg.OperationalError("server closed the connection"))


def wrapped(error: Exception) -> Exception:
    """As MLflow passes an error on, and then fails to record the failure."""
    try:
        try:
            raise MlflowException(str(error)) from error
        finally:
            raise MlflowException("Run is not in a state that allows this")
    except MlflowException as found:
        return found


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (EXPIRED, "The provided token has expired."),
        (EndpointConnectionError(endpoint_url="http://bucket"), "bucket"),
        (NoCredentialsError(), "credentials"),
        (S3UploadFailedError("Failed to upload"), "Failed to upload"),
        (CLOSED, "database failed or cannot be reached (server closed the connection)"),
        (MlflowException("API request to http://server failed"), "the tracking server failed or refused the request"),
        (MemoryError(), "the memory is too small"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            "the memory is too small",
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), "the memory is too small"),
        (cv2.error("(-4:Insufficient memory) Failed to allocate 8 bytes"), "the memory is too small"),
    ],
)
def test_an_outage_is_said_in_a_sentence_however_it_is_wrapped(error: Exception, said: str) -> None:
    assert said in outage(error)
    assert said in outage(wrapped(error))
    assert "SELECT" not in outage(wrapped(error))


@pytest.mark.parametrize(
    "error",
    [ValueError("bug"), MlflowException("bug"), sqlalchemy.exc.ProgrammingError("SELEKT", {}, psycopg.Error("syntax"))],
)
def test_a_bug_is_not_called_an_outage(error: Exception) -> None:
    assert outage(wrapped(error)) == ""


def user(python: str, folder: Path, store: str, data: str, **given: str) -> subprocess.Popen[str]:
    environment = plain_environment() | {
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "DOCTOGRES_WORKSPACE": str(folder / "workspace"),
        "MLFLOW_TRACKING_URI": store, "AWS_MAX_ATTEMPTS": "1",
    }  # fmt: skip
    command = [python, "-m", "entrypoints.clean", "--data", data]
    return subprocess.Popen(command, cwd=folder, env=environment | given, stdout=-1, stderr=-1, text=True)


def check_stopped(process: "subprocess.Popen[str]", said: str) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1, errors
    assert errors.strip().splitlines()[-1].startswith(f"clean: error: {said}"), errors[-3000:]
    assert "continues from what is kept" in errors
    assert "Traceback" not in errors


def check_done(process: "subprocess.Popen[str]") -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["expired", "gone"])
def test_a_bucket_of_slides_fails_on_the_way(
    empty_store: Path, small_cohort: Path, warm_python: str, tmp_path: Path, fault: str
) -> None:
    store = new_store(empty_store, tmp_path)
    with s3_server(tmp_path) as bucket, failing(bucket, "GET", after=40, fault=fault) as proxy:
        data = bucket.upload(small_cohort, "study/demo")
        given = bucket.environment | {"AWS_ENDPOINT_URL": proxy.url}
        check_stopped(user(warm_python, tmp_path, store, data, **given), f"{data}/")
        fetched = tmp_path / "workspace" / "fetched"
        assert [path.name for path in fetched.iterdir()] == ["files"]
        kept = [path for path in fetched.rglob("*") if path.is_file()]
        assert 0 < len(kept) < 82
        assert not [path for path in kept if path.name.endswith(".partial")]
        proxy.heal()
        check_done(user(warm_python, tmp_path, store, data, **given))
        assert proxy.served <= 84 - len(kept) + 10  # what was missing, and the listing


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["expired", "gone"])
def test_the_bucket_of_the_artifacts_fails_on_the_way(
    empty_store: Path, small_cohort: Path, warm_python: str, tmp_path: Path, fault: str
) -> None:
    store = new_store(empty_store, tmp_path)
    SqlAlchemyStore(store, str(tmp_path)).create_experiment("doctogres", artifact_location=f"s3://{BUCKET}/mlflow")
    with s3_server(tmp_path) as bucket, failing(bucket, "PUT", after=2, fault=fault) as proxy:
        given = bucket.environment | {"AWS_ENDPOINT_URL": proxy.url, "MLFLOW_S3_ENDPOINT_URL": proxy.url}
        check_stopped(
            user(warm_python, tmp_path, store, str(small_cohort), **given),
            "the bucket of the tracking store's artifacts",
        )
        assert not [name for name in bucket.files.find(f"{BUCKET}/mlflow") if name.endswith("result.json")]
        proxy.heal()
        check_done(user(warm_python, tmp_path, store, str(small_cohort), **given))
        assert [name for name in bucket.files.find(f"{BUCKET}/mlflow") if name.endswith("result.json")]


@pytest.mark.slow
def test_the_database_goes_away_on_the_way(small_cohort: Path, warm_python: str, tmp_path: Path) -> None:
    with postgres_server() as address:
        store, host = address.format("tracking"), address.partition("host=")[2]
        process = user(warm_python, tmp_path, store, str(small_cohort))
        with psycopg.connect(host=host, user=USER, dbname="postgres", autocommit=True) as link:
            while not _running(store):
                assert process.poll() is None, process.communicate()
                time.sleep(0.05)
            link.execute("ALTER DATABASE tracking ALLOW_CONNECTIONS false")
            link.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'tracking'")
            check_stopped(process, "the database failed or cannot be reached")
            link.execute("ALTER DATABASE tracking ALLOW_CONNECTIONS true")
        check_done(user(warm_python, tmp_path, store, str(small_cohort)))


def _running(store: str) -> bool:
    try:
        with psycopg.connect(store) as link:
            return bool(link.execute("SELECT 1 FROM runs WHERE status = 'RUNNING'").fetchall())
    except psycopg.errors.UndefinedTable:  # not made yet
        return False
