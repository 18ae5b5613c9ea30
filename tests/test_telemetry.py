"""No command and no server of ours looks up another machine or sends usage statistics."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import urllib.request
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml

from doctogres.serving.client import request_body
from doctogres.telemetry import OFF
from tests.servers import ROOT, free_port, post, running

QUICK = {"epochs": 2, "trials": 1, "trial_epochs": 1, "unfreeze_every": 1, "resamples": 200, "min_lesion": 1}
# Python calls this in every process of the environment before a look-up or a connection, whichever library makes it.
RECORDER = """
import os, socket, sys
HERE = (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "::", b"localhost", b"127.0.0.1")
WHERE = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.connect": 1, "socket.sendto": 1}
def hook(event, arguments):
    if event in WHERE:
        host = arguments[WHERE[event]]
        if isinstance(host, tuple):
            host = host[0]
        elif event in ("socket.connect", "socket.sendto"):
            return  # a socket of the file system
        if host not in HERE:
            with open(os.environ["LOOKUPS"], "a") as file:
                print(host, *sys.argv, file=file)
            raise OSError(f"{host} is out of reach")
sys.addaudithook(hook)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A user's environment: a `.venv` with what is installed here, the recorder, and what `make setup` adds to it."""
    folder = tmp_path_factory.mktemp("user")
    venv.create(folder / "venv", symlinks=True)
    bin_ = folder / "venv" / "bin"
    site = folder / "venv" / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (site / "installed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (site / "recorder.py").write_text(RECORDER)
    (site / "recorder.pth").write_text("import recorder\n")
    for name in ("mlflow", "uvicorn"):
        script = Path(sys.executable).with_name(name).read_text()
        (bin_ / name).write_text(re.sub("^#!.*", f"#!{bin_}/python", script))
        (bin_ / name).chmod(0o755)
    subprocess.run(["make", "-C", ROOT, "telemetry", f"BIN={bin_}"], check=True, stdout=subprocess.DEVNULL)
    return {
        "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "TMPDIR": str(tmp_path_factory.mktemp("tmp")),
        "DOCTOGRES_WORKSPACE": str(folder / "workspace"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "OMP_NUM_THREADS": "1",
        "LOOKUPS": str(folder / "lookups"),
    }


def check_quiet(environment: dict[str, str]) -> None:
    """Nobody was looked up so far, and MLflow has not given this user a number."""
    home = Path(environment["HOME"])
    assert not (home / "lookups").exists(), (home / "lookups").read_text()
    assert not list(home.rglob("telemetry.json"))


def command_in(environment: dict[str, str], name: str, *arguments: str) -> list[str]:
    """A command of the environment, with its whole path: a new process is looked for on the old PATH."""
    return [str(Path(environment["PATH"].split(os.pathsep)[0]) / name), *arguments]


def run(environment: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        command_in(environment, *command),
        cwd=environment["HOME"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.slow
def test_mlflow_itself_would_ask_its_makers_host(environment: dict[str, str], tmp_path: Path) -> None:
    """So that the other tests can fail."""
    code = (
        "import mlflow, time; mlflow.set_experiment('x'); mlflow.MlflowClient().create_experiment('y'); time.sleep(2)"
    )
    own = dict.fromkeys(OFF, "false") | {"HOME": str(tmp_path), "LOOKUPS": str(tmp_path / "lookups")}
    own["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path}/mlflow.db"
    run(environment | own, "python", "-c", code)
    assert (tmp_path / "lookups").read_text().startswith("config.mlflow-telemetry.io ")
    assert list(tmp_path.rglob("telemetry.json"))


@pytest.fixture(scope="module")
def flow(environment: dict[str, str], small_cohort: Path) -> dict[str, Any]:
    """`mlflow run .` of everything, from `clean` to `predict`; its JSON line."""
    settings = [word for name, value in QUICK.items() for word in ("-P", f"{name}={value}")]
    settings += ["-P", f"data={small_cohort}", "--env-manager", "local"]
    printed = run(environment, "mlflow", "run", str(ROOT), *settings)
    (line,) = [line for line in printed.splitlines() if line.startswith('{"stage"')]
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.slow
def test_the_flow_looks_nobody_up(environment: dict[str, str], flow: dict[str, Any]) -> None:
    assert flow["artifacts"].keys() >= {"clean/cohort", "train/model", "evaluate/predictions"}
    check_quiet(environment)


@pytest.mark.slow
def test_serving_looks_nobody_up(
    environment: dict[str, str], flow: dict[str, Any], small_cohort: Path, tmp_path: Path
) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    command = ["mlflow", "models", "serve", "--model-uri", flow["artifacts"]["train/model"], "--env-manager", "local"]
    command += ["--port", address.rsplit(":", 1)[1]]
    slide = sorted((small_cohort / "train_data").glob("img_*.png"))[0]
    with running(command_in(environment, *command), f"{address}/ping", tmp_path / "log", environment, seconds=300):
        body = json.dumps(request_body(slide)).encode()
        assert post(address, body, "application/json")["predictions"]
    check_quiet(environment)


@pytest.mark.slow
def test_the_tracking_page_and_the_app_look_nobody_up(environment: dict[str, str], tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    command = ["mlflow", "ui", "--workers", "1", "--port", address.rsplit(":", 1)[1]]
    own = environment | {"MLFLOW_BACKEND_STORE_URI": environment["MLFLOW_TRACKING_URI"]}
    question = f"{address}/ajax-api/3.0/mlflow/ui-telemetry"
    with (
        running(command_in(environment, *command), f"{address}/health", tmp_path / "log", own, seconds=120),
        urllib.request.urlopen(question) as answer,
    ):
        assert json.load(answer)["disable_ui_telemetry"] is True
    address = f"http://127.0.0.1:{free_port()}"
    command = ["python", "-m", "doctogres.app", "--port", address.rsplit(":", 1)[1]]
    own = environment | {"PYTHONPATH": str(ROOT / "src")}
    with running(command_in(environment, *command), f"{address}/_stcore/health", tmp_path / "log", own, seconds=120):
        check_quiet(environment)
    check_quiet(environment)


@pytest.mark.parametrize("first", ["import entrypoints", "exec(open('entrypoints/telemetry.pth').read())"])
def test_every_place_sets_the_same(first: str) -> None:
    code = f"{first}; import os; print(all(os.environ[name] == value for name, value in {OFF}.items()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={}, capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr


def test_make_and_conda_set_the_same() -> None:
    assert yaml.safe_load((ROOT / "conda.yaml").read_text())["variables"] == OFF
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"export {name} ?= {value}\n" in makefile for name, value in OFF.items())
