"""A tracking server that asks for a login and knows its own name."""

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import ROOT, free_port, running
from tests.stores import new_store, plain_environment

pytestmark = pytest.mark.slow
PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def environment(warm_python: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of a user's commands, and as PYTHON the program that runs them."""
    folder, path = tmp_path_factory.mktemp("user"), f"{ROOT / 'src'}{os.pathsep}{ROOT}"
    return plain_environment() | {"DOCTOGRES_WORKSPACE": str(folder), "PYTHONPATH": path, "PYTHON": warm_python}


@pytest.fixture(scope="module")
def server(environment: dict[str, str], empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "login.ini").write_text(
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/login.db\nadmin_username = admin\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    port = free_port()
    command = [
        str(Path(sys.executable).parent / "mlflow"), "server", "--app-name", "basic-auth", "--port", str(port), "--workers", "1",
        "--backend-store-uri", new_store(empty_store, folder), "--artifacts-destination", str(folder / "artifacts"),
        "--allowed-hosts", "127.0.0.1:*",
    ]  # fmt: skip
    own = {"MLFLOW_AUTH_CONFIG_PATH": str(folder / "login.ini"), "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD}
    own["MLFLOW_FLASK_SERVER_SECRET_KEY"] = "secret"
    address = f"http://127.0.0.1:{port}"
    with running(command, f"{address}/health", folder / "log", environment | own, seconds=120):
        yield address


def clean(
    environment: dict[str, str], cohort: Path, folder: Path, *, seed: int = 7
) -> subprocess.CompletedProcess[str]:
    command = [
        environment["PYTHON"],
        "-m",
        "entrypoints.clean",
        "--data",
        str(cohort),
        "--preset",
        "demo",
        "--seed",
        str(seed),
    ]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_commands_log_in_with_what_is_in_the_environment(
    server: str, environment: dict[str, str], small_cohort: Path, tmp_path: Path
) -> None:
    login = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    done = clean(environment | {"MLFLOW_TRACKING_URI": server} | login, small_cohort, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert PASSWORD not in done.stdout + done.stderr


@pytest.mark.parametrize("login", [{}, {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "wrong"}])
def test_without_a_login_a_command_ends_with_one_line_that_says_what_is_missing(
    server: str, environment: dict[str, str], small_cohort: Path, tmp_path: Path, login: dict[str, str]
) -> None:
    done = clean(environment | {"MLFLOW_TRACKING_URI": server} | login, small_cohort, tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("clean: error: the tracking store cannot be used")
    assert "401" in line
    assert "MLFLOW_TRACKING_USERNAME" in line


def test_a_user_who_may_only_read_gets_one_line(
    server: str, environment: dict[str, str], small_cohort: Path, tmp_path: Path
) -> None:
    login = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
    assert clean(environment | {"MLFLOW_TRACKING_URI": server} | login, small_cohort, tmp_path).returncode == 0
    reader = {"username": "reader", "password": PASSWORD}
    request = urllib.request.Request(
        f"{server}/api/2.0/mlflow/users/create", json.dumps(reader).encode(), {"Content-Type": "application/json"}
    )
    request.add_header("Authorization", f"Basic {base64.b64encode(f'admin:{PASSWORD}'.encode()).decode()}")
    urllib.request.urlopen(request)
    login["MLFLOW_TRACKING_USERNAME"] = "reader"
    found = clean(environment | {"MLFLOW_TRACKING_URI": server} | login, small_cohort, tmp_path)
    assert found.returncode == 0  # the administrator's run stands for it
    done = clean(environment | {"MLFLOW_TRACKING_URI": server} | login, small_cohort, tmp_path, seed=8)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("clean: error: the tracking server failed or refused")
    assert "Permission denied" in line


def test_the_server_answers_to_its_own_name_only(server: str) -> None:
    request = urllib.request.Request(f"{server}/api/2.0/mlflow/experiments/search", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    assert refused.value.code == 403
