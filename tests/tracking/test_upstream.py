"""A parameter that names an upstream result takes a run id, an address, a path or `latest`."""

from pathlib import Path

import mlflow
import pytest

from doctogres.catalogue import STAGES
from doctogres.errors import UpstreamError
from doctogres.tracking.runs import StageRun, run_stage
from doctogres.tracking.upstream import find_artifact, find_model, fixed_address


def finish(stage: str, text: str) -> str:
    def body(run: StageRun) -> None:
        run.publish(next(iter(STAGES[stage].artifacts))).write_text(text)

    return run_stage(stage, body, settings={"text": text}, inputs={}).run_id


def find(value: str) -> str:
    return find_artifact(value, stage="clean", name="cohort").path.read_text()


def test_every_way_to_name_a_result_finds_it(store: Path) -> None:
    old, new = finish("clean", "old"), finish("clean", "new")
    (store / "here").mkdir()
    (store / "here" / "cohort.parquet").write_text("local")
    assert find("latest") == "new"
    assert find(old) == "old"
    assert find(f"runs:/{old}") == "old"
    assert find(f"runs:/{new}/cohort.parquet") == "new"
    assert find("here") == "local"
    assert find("here/cohort.parquet") == "local"


@pytest.mark.parametrize("value", ["latest", "0" * 32, "runs:/" + "0" * 32, "nowhere", "models:/doctogres/1"])
def test_what_is_not_there_is_an_error_that_names_it(store: Path, value: str) -> None:
    with pytest.raises(UpstreamError) as error:
        find(value)
    assert value in str(error.value)


def test_a_run_of_another_stage_is_refused(store: Path) -> None:
    other = finish("patch", "x")
    with pytest.raises(UpstreamError, match="patch"):
        find(other)


def test_latest_skips_running_and_failed_runs(store: Path) -> None:
    finish("clean", "good")
    with pytest.raises(RuntimeError), mlflow.start_run():
        mlflow.set_tag("doctogres.stage", "clean")
        raise RuntimeError
    assert find("latest") == "good"


def test_models_are_named_by_address_or_folder(store: Path) -> None:
    (store / "model").mkdir()
    (store / "model" / "MLmodel").write_text("")
    assert find_model("models:/doctogres@champion") == "models:/doctogres@champion"
    assert find_model("model") == str((store / "model").resolve())
    with pytest.raises(UpstreamError):
        find_model("nothing")
    with pytest.raises(UpstreamError, match="no such model"):
        fixed_address("models:/doctogres@champion")
