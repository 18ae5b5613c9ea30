"""A team's server (docs/team-server.md): PostgreSQL, a login, artifacts in a bucket; and it stops while a user trains.

`running` starts the server as the page says; the user knows its address, name and password, and nothing of the rest.
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg
import pytest

from tests.postgres import postgres_server
from tests.s3 import BUCKET, SECRET, Bucket, s3_server
from tests.servers import ROOT, free_port, json_line, running
from tests.stores import plain_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
PASSWORD = "Rote-Gruetze-mit-Vanillesosse"
OUTAGE = 10  # seconds
QUICK = {"trials": 1, "trial_epochs": 1, "epochs": 4, "patience": 4, "folds": 2, "resamples": 100}


OF_TRAIN = (
    "SELECT metrics.key, metrics.step, metrics.timestamp FROM metrics JOIN tags ON tags.run_uuid = metrics.run_uuid"
    " WHERE tags.key = 'doctogres.stage' AND tags.value = 'train'"
)


@dataclass
class Team:
    """A server that can be stopped and started again, with its database and bucket."""

    folder: Path
    bucket: Bucket
    database: str
    port: int = field(default_factory=free_port)
    up: ExitStack = field(default_factory=ExitStack)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        (self.folder / "login.ini").write_text(
            f"[mlflow]\ndefault_permission = EDIT\ndatabase_uri = {self.database.format('study')}\nadmin_username = admin\n"
            "auth_cache_ttl_seconds = 60\nauthorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
        command = [
            str(Path(sys.executable).parent / "mlflow"), "server", "--app-name", "basic-auth", "--workers", "1",
            "--host", "127.0.0.1", "--port", str(self.port), "--allowed-hosts", "127.0.0.1:*",
            "--backend-store-uri", self.database.format("tracking"),
            "--serve-artifacts", "--artifacts-destination", f"s3://{BUCKET}/mlflow",
        ]  # fmt: skip
        own = {
            "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "login.ini"), "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret",
        }  # fmt: skip
        environment = plain_environment() | self.bucket.environment | own
        log = self.folder / f"server-{len(list(self.folder.glob('server-*')))}.log"
        self.up.enter_context(running(command, f"{self.address}/health", log, environment, seconds=120))

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.database.format("tracking")) as link:
            return link.execute(query).fetchall()

    def add(self, user: str) -> None:
        """The administrator makes an account."""
        login = base64.b64encode(f"admin:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(
            f"{self.address}/api/2.0/mlflow/users/create",
            json.dumps({"username": user, "password": PASSWORD}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Basic {login}"},
        )
        urllib.request.urlopen(request)

    def environment(self, folder: Path) -> dict[str, str]:
        """Of a user's commands, in a folder."""
        return plain_environment() | {
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "TMPDIR": str(folder), "OMP_NUM_THREADS": "1",
            "MLFLOW_TRACKING_URI": self.address, "MLFLOW_TRACKING_USERNAME": "ada",
            "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        }  # fmt: skip


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    with postgres_server() as database, s3_server(folder) as bucket:
        found = Team(folder, bucket, database)
        with found.up:
            found.start()
            found.add("ada")
            yield found


def test_the_pipeline_outlives_the_server_and_loses_no_metric(team: Team, small_cohort: Path, tmp_path: Path) -> None:
    options = [word for name, value in QUICK.items() for word in (f"--{name}", str(value))]
    cohort = shutil.copytree(small_cohort, tmp_path / "cohort", ignore=shutil.ignore_patterns("test_*"))  # no predict
    environment = team.environment(tmp_path)
    command = [sys.executable, "-m", "entrypoints.main", "--data", str(cohort), *options]
    logs = [tmp_path / "out", tmp_path / "errors"]
    with logs[0].open("w") as out, logs[1].open("w") as errors:
        user = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out, stderr=errors)
    try:
        while not team.rows(OF_TRAIN + " AND metrics.key = 'fold0/val_loss' AND metrics.step = 1"):
            assert user.poll() is None, logs[1].read_text()[-3000:]
            time.sleep(0.1)
        stopped = time.time()
        team.up.close()
        time.sleep(OUTAGE)
        team.start()
        started = time.time()
        assert user.wait() == 0, logs[1].read_text()[-3000:]
    finally:
        user.kill()

    curves = team.rows(OF_TRAIN + " AND metrics.key LIKE 'fold%/val_loss'")
    assert Counter((key, step) for key, step, _ in curves) == Counter(
        (f"fold{fold}/val_loss", step) for fold in range(2) for step in range(4)
    )
    assert [key for key, _, when in curves if stopped < int(str(when)) / 1000 < started]  # logged while nobody listened
    assert set(team.rows("SELECT DISTINCT status FROM runs")) == {("FINISHED",)}
    result = json_line(logs[0].read_text())
    assert result["artifacts"]["train/model"].startswith("models:/")
    stored = team.bucket.files.find(f"{BUCKET}/mlflow")
    assert any(name.endswith(".safetensors") for name in stored)
    assert any(name.endswith("report.html") for name in stored)

    said = "".join(path.read_text(errors="replace") for path in [*logs, *team.folder.glob("*.log")])
    assert not [secret for secret in (PASSWORD, SECRET) if secret in said]


def test_a_server_without_its_bucket_is_said_in_one_line(team: Team, small_cohort: Path, tmp_path: Path) -> None:
    nowhere = replace(team.bucket, environment=team.bucket.environment | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    lame = Team(tmp_path, nowhere, team.database)
    command = [sys.executable, "-m", "entrypoints.clean", "--data", str(small_cohort), "--seed", "11"]
    environment = lame.environment(tmp_path) | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    with lame.up:
        lame.start()
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("clean: error: the tracking server failed or refused")
    assert "Traceback" not in done.stderr
