"""A store that was moved, copied or belongs to another machine is refused before anything is written."""

import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.entities import Experiment, LoggedModelOutput
from mlflow.exceptions import MlflowException

from doctogres.errors import TrackingError, UpstreamError
from doctogres.tracking.places import check_place, fetch
from doctogres.tracking.runs import StageRun, run_stage
from doctogres.tracking.store import connect, experiment_id
from doctogres.tracking.upstream import find_artifact
from tests.stores import connected, new_store

ROOT = Path(__file__).resolve().parents[2]


def finish(text: str) -> str:
    return run_stage("clean", lambda run: write(run, text), settings={"text": text}, inputs={}).run_id


def write(run: StageRun, text: str) -> None:
    run.publish("cohort").write_text(text)


@pytest.fixture
def home(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a new store: the database, and the artifacts when there are some."""
    folder = tmp_path / "old"
    folder.mkdir()
    with connected(new_store(empty_store, folder), folder, monkeypatch):
        yield folder


def use(folder: Path, patcher: pytest.MonkeyPatch) -> None:
    patcher.chdir(folder)
    patcher.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    patcher.setenv("MLFLOW_EXPERIMENT_ID", "0")
    connect()


def taken(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_a_store_that_was_moved_or_copied_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch, how) -> None:
    finish("a")
    place = mlflow.get_experiment(experiment_id()).artifact_location
    new = home.with_name("new")
    how(home, new)
    before = taken(home)
    with pytest.raises(TrackingError) as error:
        use(new, monkeypatch)
    said = str(error.value)
    assert "\n" not in said
    for part in (
        f"sqlite:///{new}/mlflow.db",
        place,
        str(new / "mlruns"),
        "MLFLOW_EXPERIMENT_NAME",
        "docs/your-data.md",
    ):
        assert part in said
    assert taken(home) == before


def test_a_new_experiment_goes_on_in_the_new_place(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = finish("a")
    new = home.with_name("new")
    shutil.move(home, new)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "here")
    use(new, monkeypatch)
    assert find_artifact(finish("b"), stage="clean", name="cohort").path.read_text() == "b"
    with pytest.raises(UpstreamError) as error:  # another experiment's run, which stayed behind
        find_artifact(old, stage="clean", name="cohort")
    said = str(error.value)
    assert "\n" not in said
    assert f"the store sqlite:///{new}/mlflow.db keeps it in {home}/mlruns/" in said


def test_the_statements_of_the_documentation_move_a_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = finish("a")
    new = home.with_name("new")
    shutil.copytree(home, new)
    page = (ROOT / "docs" / "your-data.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"python - <<'END'\n(.*?)\n +END", page, flags=re.DOTALL)
    monkeypatch.chdir(new)
    lines = [line.removeprefix("    ") for line in code.splitlines()]
    exec("\n".join(lines).replace("/old/place", str(home)).replace("/new/place", str(new)))
    shutil.rmtree(home)
    use(new, monkeypatch)
    found = find_artifact(old, stage="clean", name="cohort")
    assert mlflow.get_run(old).info.artifact_uri.startswith(str(new))
    assert found.path.read_text() == "a"
    with sqlite3.connect(new / "mlflow.db") as database:
        assert str(home) not in "\n".join(line for line in database.iterdump() if "INTO" in line and "tags" not in line)


def test_artifacts_may_be_kept_elsewhere_on_purpose(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(
        "MLFLOW_EXPERIMENT_ID", mlflow.create_experiment("another", artifact_location=str(tmp_path / "b" / "1"))
    )
    connect()
    assert mlflow.get_run(finish("a")).info.artifact_uri.startswith(str(tmp_path / "b"))
    connect()


def test_artifacts_that_somebody_deleted_are_no_moved_store(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish("a")
    shutil.rmtree(home / "mlruns")
    use(home, monkeypatch)
    assert finish("a")


def placed(location: Path | str) -> Experiment:
    return Experiment("1", "doctogres", str(location), "active")


def test_the_folder_of_a_server_on_another_machine_is_refused(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # nobody is asked
    mlflow.set_tracking_uri("http://someone:secret@tracking.example:5000")
    with pytest.raises(TrackingError, match="not there") as error:
        check_place(placed(tmp_path / "of the server" / "1"))
    assert "http://someone:***@tracking.example:5000" in str(error.value)
    assert "secret" not in str(error.value)
    check_place(placed("mlflow-artifacts:/1"))
    check_place(placed("s3://bucket/1"))


def test_a_place_where_nothing_can_be_written_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    mlflow.set_tracking_uri("http://127.0.0.1:5000")
    with pytest.raises(TrackingError, match="may not write.*--artifacts-destination"):
        check_place(placed(tmp_path / "file" / "1"))


def test_a_models_recorded_place_is_named(home: Path) -> None:
    with mlflow.start_run():
        model = mlflow.initialize_logged_model(name="model")
    shutil.rmtree(model.artifact_location, ignore_errors=True)
    with pytest.raises(UpstreamError, match=re.escape(model.artifact_location)):
        fetch(f"models:/{model.model_id}")


def test_an_artifact_on_this_disk_is_not_copied(home: Path) -> None:
    run_id = finish("a")
    found = fetch(f"runs:/{run_id}/cohort.parquet")
    assert found.is_relative_to(home)
    assert found.read_text() == "a"


def test_a_model_is_found_by_the_run_that_logged_it(home: Path) -> None:
    with mlflow.start_run() as run:
        model = mlflow.initialize_logged_model(name="model")
        place = Path(model.artifact_location)
        place.mkdir(parents=True)
        (place / "MLmodel").write_text(f"model_id: {model.model_id}\n")
        mlflow.log_outputs([LoggedModelOutput(model.model_id, 0)])
    mlflow.finalize_logged_model(model.model_id, "READY")
    assert (fetch(f"runs:/{run.info.run_id}/model") / "MLmodel").is_file()


def test_the_reason_of_a_refusal_is_said_and_not_that_of_a_missing_path(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = finish("a")

    def refused(artifact_uri: str) -> str:
        if artifact_uri.startswith("runs:/"):
            raise MlflowException("Failed to download artifacts from path 'cohort.parquet'")
        raise MlflowException(
            "The following failures occurred while downloading:\n##### File cohort.parquet #####\nExpiredToken"
        )

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", refused)
    with pytest.raises(UpstreamError, match=r"could not be fetched \(ExpiredToken\)"):
        fetch(f"runs:/{run_id}/cohort.parquet")
