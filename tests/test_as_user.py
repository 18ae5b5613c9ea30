"""As a user does it: `mlflow run` in an environment of its own, a tracking server, the served model, the request."""

import io
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest

from doctogres.model.ensemble import WITHOUT_OPENVINO
from tests.servers import ROOT, as_json, free_port, json_line, post, running
from tests.stores import new_store, plain_environment

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent
QUICK = {"epochs": 2, "trials": 1, "trial_epochs": 1, "unfreeze_every": 1, "resamples": 200}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A user's environment: the tools on the PATH, nothing of MLflow set but where environments and caches go."""
    home = tmp_path_factory.mktemp("user")
    kept = plain_environment()
    own = {"MLFLOW_ENV_ROOT": str(home / "envs"), "DOCTOGRES_WORKSPACE": str(home / "workspace")}
    return kept | own | {"PATH": f"{BIN}:{kept['PATH']}"}


@pytest.fixture(scope="module")
def server(environment: dict[str, str], empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking server whose artifacts go through its proxy."""
    folder = tmp_path_factory.mktemp("server")
    address = f"http://127.0.0.1:{free_port()}"
    command = [
        str(BIN / "mlflow"),
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        address.rsplit(":", 1)[1],
        "--workers",
        "1",
    ]
    command += [
        "--backend-store-uri",
        new_store(empty_store, folder),
        "--artifacts-destination",
        str(folder / "artifacts"),
    ]
    with running(command, f"{address}/health", folder / "log", environment, seconds=120):
        yield address


def run_project(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "mlflow"), "run", str(ROOT), *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def flow(environment: dict[str, str], server: str, small_cohort: Path) -> dict[str, Any]:
    """`mlflow run . --env-manager uv` of everything against the server; its JSON line."""
    settings = [word for name, value in QUICK.items() for word in ("-P", f"{name}={value}")]
    done = run_project(
        environment | {"MLFLOW_TRACKING_URI": server}, "--env-manager", "uv", "-P", f"data={small_cohort}", *settings
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    result: dict[str, Any] = json_line(done.stdout)
    return result


def test_the_flow_runs_in_its_own_environment_against_a_server(flow: dict[str, Any], server: str) -> None:
    assert flow["stage"] == "main"
    query = urllib.request.urlopen(f"{server}/api/2.0/mlflow/runs/get?run_id={flow['run_id']}")
    run = json.load(query)["run"]
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["artifact_uri"].startswith("mlflow-artifacts:")
    named = urllib.request.urlopen(f"{server}/api/2.0/mlflow/experiments/get-by-name?experiment_name=doctogres")
    assert json.load(named)["experiment"]["experiment_id"] == run["info"]["experiment_id"]


def read(server: str, artifact: str) -> str:
    """Where an artifact of a run lies on this disk."""
    return str(mlflow.artifacts.download_artifacts(artifact_uri=artifact, tracking_uri=server))


@pytest.mark.parametrize("manager", ["uv", "local"])
def test_the_served_model_answers_as_it_was_evaluated(
    flow: dict[str, Any], server: str, environment: dict[str, str], small_cohort: Path, tmp_path: Path, manager: str
) -> None:
    address = f"http://127.0.0.1:{free_port()}"
    command = [str(BIN / "mlflow"), "models", "serve", "--model-uri", flow["artifacts"]["train/model"]]
    command += ["--env-manager", manager, "--port", address.rsplit(":", 1)[1]]
    evaluated = pd.read_csv(read(server, flow["artifacts"]["evaluate/predictions"])).set_index("slide_id")
    cohort = pd.read_parquet(read(server, flow["artifacts"]["clean/cohort"])).set_index("slide_id").loc[evaluated.index]
    slides = [
        {"slide_id": name, **{part: (small_cohort / row[part]).read_bytes() for part in ("image", "mask")}}
        for name, row in cohort.iterrows()
    ]
    table = io.BytesIO()
    pd.DataFrame(slides).to_parquet(table)
    here = environment | {"MLFLOW_TRACKING_URI": server}
    with running(command, f"{address}/ping", tmp_path / "log", here, seconds=300):
        together = post(address, table.getvalue(), "application/vnd.apache.parquet")["predictions"]
        alone = [post(address, json_body(slide), "application/json")["predictions"][0] for slide in slides]
        for answers in (together, alone):
            assert [answer["slide_id"] for answer in answers] == list(evaluated.index)
            for answer, (_, expected) in zip(answers, evaluated.iterrows(), strict=True):
                assert (answer["label"], answer["error"]) == (expected["predicted"], None)
                assert answer["n_patches"] == len(answer["patches"]) == expected["n_patches"]
                assert answer["probabilities"] == pytest.approx(
                    {name: expected[f"p_{name}"] for name in answer["probabilities"]}, abs=1e-5
                )
        half = {"image": slides[0]["image"][:400], "slide_id": "img_7"}
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(address, json_body(slides[0], half), "application/json")
        assert refused.value.code == 400
        assert json.load(refused.value)["message"].startswith("img_7 (image) is truncated")
        report = post(address, json_body(slides[0], half, on_error="report"), "application/json")
        assert [bool(row["error"]) for row in report["predictions"]] == [False, True]
    assert WITHOUT_OPENVINO not in (tmp_path / "log").read_text()


def json_body(*rows: dict[str, Any], **params: Any) -> bytes:
    return json.dumps(as_json(*rows, **params)).encode()


def test_a_plain_run_uses_the_projects_sqlite_store_and_our_experiment(
    environment: dict[str, str], tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    done = run_project(
        environment | {"MLFLOW_TRACKING_URI": store},
        "-e", "demo_data", "--env-manager", "local", "-P", f"target={tmp_path / 'demo'}", "-P", "size=12",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    result = json_line(done.stdout)
    assert result["stage"] == "demo_data"
    assert (tmp_path / "demo" / "train_labels.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-e", "train", "-P", "epochs=0"], ["train: error: epochs=0", "greater than or equal to 1"]),
        (["-e", "clean", "-P", "colour=red"], ["clean: error: colour", "allowed are", "holdout"]),
    ],
)
def test_a_bad_parameter_fails_the_run_with_one_clear_line(
    environment: dict[str, str], empty_store: Path, tmp_path: Path, arguments: list[str], words: list[str]
) -> None:
    store = environment | {"MLFLOW_TRACKING_URI": new_store(empty_store, tmp_path)}
    done = run_project(store, "--env-manager", "local", *arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if ": error: " in line]
    assert all(word in line for word in words)
