"""What `mlflow run` recorded before any code of ours is masked."""

import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow.store.tracking.rest_store import RestStore

from doctogres.tracking.recorded import hide_passwords
from entrypoints.reference import ROOT, command_of

PASSWORD = "hunter2hunter2"
ADDRESS = f"postgresql://me:{PASSWORD}@host/db"


def record(**parameters: str) -> str:
    with mlflow.start_run() as run:
        mlflow.log_params(parameters)
    return str(run.info.run_id)


def test_the_password_leaves_the_store_and_its_file(store: Path) -> None:
    run = record(storage=ADDRESS, coded=f"postgresql:///db?p%61ssword={PASSWORD}", preset="demo")
    other = record(storage="x")
    assert PASSWORD.encode() in (store / "mlflow.db").read_bytes()
    assert hide_passwords(run)
    assert mlflow.get_run(run).data.params == {
        "storage": "postgresql://me:***@host/db", "coded": "postgresql:///db?password=***", "preset": "demo",
    }  # fmt: skip
    assert mlflow.get_run(other).data.params == {"storage": "x"}
    assert PASSWORD.encode() not in (store / "mlflow.db").read_bytes()


def test_a_command_refuses_the_password_and_hides_it(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", record(storage=ADDRESS))
    with pytest.raises(SystemExit) as stop:
        command_of("tune").main(["--storage", ADDRESS])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tune: error: storage=postgresql://me:***@host/db: a password in an address")
    assert PASSWORD.encode() not in (store / "mlflow.db").read_bytes()


def test_where_the_store_is_a_server_the_command_says_that_it_keeps_the_password(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow.set_tracking_uri("http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0123")
    assert isinstance(mlflow.MlflowClient()._tracking_client.store, RestStore)
    with pytest.raises(SystemExit):
        command_of("tune").main(["--storage", ADDRESS])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; the store keeps the old one in run 0123")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--preset", ADDRESS],
        [f"--patches={ADDRESS}"],
        ["--trials", ADDRESS],
        ["--trials", "x", "--storage", ADDRESS],
        [ADDRESS],
    ],
)
def test_no_message_of_a_command_holds_a_password(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_of("tune").main(arguments)
    said = capsys.readouterr()
    assert "postgresql://me:***@host/db" in said.err
    assert PASSWORD not in said.err + said.out


def test_the_address_of_the_store_is_refused_before_mlflow_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom entrypoints.clean import command\n"
        "try:\n    command.main([])\nfinally:\n    print('mlflow' in sys.modules)\n"
    )
    environment = {"PYTHONPATH": f"{ROOT}", "MLFLOW_TRACKING_URI": f"http://me:{PASSWORD}@127.0.0.1:1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "False\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("clean: error: MLFLOW_TRACKING_URI=http://me:***@127.0.0.1:1: ")
    assert "MLFLOW_TRACKING_USERNAME" in line


def test_an_experiment_whose_artifacts_have_a_password_in_their_place_is_refused(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from doctogres.errors import ParameterError
    from doctogres.tracking.store import connect

    made = mlflow.create_experiment("cloud", artifact_location=f"s3://key:{PASSWORD}@bucket/x")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", made)
    with pytest.raises(ParameterError, match=r"^artifact_location=s3://key:\*\*\*@bucket/x: .*AWS_SECRET_ACCESS_KEY"):
        connect()
