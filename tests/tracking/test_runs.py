"""Stages are reused only when they finished with the same settings, inputs and code."""

import shutil
from collections.abc import Callable
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from doctogres.errors import CohortError
from doctogres.tracking.datasets import log_table
from doctogres.tracking.fingerprints import fingerprint
from doctogres.tracking.runs import (
    FINGERPRINT_TAG,
    PROBLEMS,
    STAGE_TAG,
    StageRun,
    finished_runs,
    run_stage,
)
from doctogres.tracking.store import connect, experiment_id


def counting_body() -> tuple[list[str], Callable[[StageRun], None]]:
    calls: list[str] = []

    def body(run: StageRun) -> None:
        calls.append(run.run_id)
        run.publish("cohort").write_text("a\n1\n")
        run.log_metrics({"score": 0.5})

    return calls, body


def test_a_finished_stage_is_reused_and_a_changed_one_is_repeated(store: Path) -> None:
    calls, body = counting_body()
    first = run_stage("clean", body, settings={"a": 1}, inputs={"data": "x"})
    again = run_stage("clean", body, settings={"a": 1}, inputs={"data": "x"})
    assert again.reused
    assert (again.run_id, again.artifacts, again.metrics) == (first.run_id, first.artifacts, first.metrics)
    for settings, inputs in (({"a": 2}, {"data": "x"}), ({"a": 1}, {"data": "y"})):
        assert not run_stage("clean", body, settings=settings, inputs=inputs).reused
    assert not run_stage("clean", body, settings={"a": 1}, inputs={"data": "x"}, rerun=True).reused
    assert len(calls) == 4


def test_artifacts_that_differ_in_case_only_do_not_overwrite_each_other_anywhere(tmp_path: Path) -> None:
    run = StageRun("predict", "run", "fingerprint", tmp_path)
    paths = [run.attach(f"overlays/{name}.png") for name in ("a", "A", "b", "a", "A")]
    assert len({str(path).casefold() for path in paths}) == 3
    assert (paths[0].name, paths[2].name) == ("a.png", "b.png")
    assert paths[:2] == paths[3:]


def test_the_fingerprint_knows_stage_settings_and_inputs() -> None:
    marks = {
        fingerprint("doctogres.stages.clean", {"a": 1}, {"data": "x"}),
        fingerprint("doctogres.stages.patch", {"a": 1}, {"data": "x"}),
        fingerprint("doctogres.stages.clean", {"a": 2}, {"data": "x"}),
        fingerprint("doctogres.stages.clean", {"a": 1}, {"data": "y"}),
    }
    assert len(marks) == 4
    ordered, reordered = (
        fingerprint("doctogres.stages.clean", one, {}) for one in ({"a": 1, "b": 2}, {"b": 2, "a": 1})
    )
    assert ordered == reordered


def test_a_weights_file_counts_by_its_content(tmp_path: Path) -> None:
    for name, content in (("one", "same"), ("moved", "same"), ("other", "other")):
        (tmp_path / f"{name}.safetensors").write_text(content)

    def mark(weights: str) -> str:
        return fingerprint("doctogres.stages.train", {"train.weights": weights}, {})

    one, moved, other = (mark(str(tmp_path / f"{name}.safetensors")) for name in ("one", "moved", "other"))
    assert one == moved
    assert len({one, other, mark("none"), mark("imagenet")}) == 4
    (tmp_path / "one.json").write_text("{}")  # its configuration
    assert mark(str(tmp_path / "one.safetensors")) not in (one, other)


def test_an_encoder_in_a_folder_counts_by_its_content(tmp_path: Path) -> None:
    def mark(name: str, configuration: str, weights: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(configuration)
        (folder / "model.safetensors").write_text(weights)
        return fingerprint("doctogres.stages.train", {"train.backbone": f"local-dir:{folder}"}, {})

    one, moved = mark("one", "{}", "same"), mark("moved", "{}", "same")
    assert one == moved
    assert len({one, mark("weights", "{}", "other"), mark("configuration", "{ }", "same")}) == 3


def test_a_stage_that_fails_is_marked_failed_and_not_reused(store: Path) -> None:
    def broken(run: StageRun) -> None:
        run.publish("cohort").write_text("half")
        raise CohortError("no slide is left")

    with pytest.raises(CohortError):
        run_stage("clean", broken, settings={}, inputs={})
    assert finished_runs("clean") == []
    runs = MlflowClient().search_runs([experiment_id()])
    assert [run.info.status for run in runs] == ["FAILED"]
    calls, body = counting_body()
    assert not run_stage("clean", body, settings={}, inputs={}).reused
    assert len(calls) == 1


def test_strict_fails_after_everything_is_stored_and_also_on_reuse(store: Path) -> None:
    def body(run: StageRun) -> None:
        run.publish("cohort").write_text("rows")
        run.log_metrics({PROBLEMS: 2})

    with pytest.raises(CohortError, match="2 slides"):
        run_stage("clean", body, settings={}, inputs={}, strict=True)
    run = MlflowClient().search_runs([experiment_id()])[0]
    assert [file.path for file in MlflowClient().list_artifacts(run.info.run_id)] == ["cohort.parquet", "result.json"]
    assert not run_stage("clean", body, settings={}, inputs={}).reused
    with pytest.raises(CohortError, match="strict=true"):
        run_stage("clean", body, settings={}, inputs={}, strict=True)


def test_the_run_carries_tags_parameters_and_its_dataset(store: Path) -> None:
    def body(run: StageRun) -> None:
        run.name("2 of 3 slides")
        log_table(
            pd.DataFrame({"slide_id": ["a", None]}), name="slides", source="runs:/x/y.parquet", context="cleaning"
        )

    result = run_stage("clean", body, settings={"slime": "drop"}, inputs={"data": "d1"}, data_digest="d1")
    run = mlflow.get_run(result.run_id)
    assert run.info.run_name == "2 of 3 slides clean"
    assert run.data.params == {"clean.slime": "drop"}
    assert run.data.tags[STAGE_TAG] == "clean"
    assert run.data.tags["doctogres.data_digest"] == "d1"
    assert FINGERPRINT_TAG in run.data.tags
    assert "doctogres.input.data" not in run.data.tags  # it is the tag above
    assert run.inputs is not None
    assert [entry.dataset.name for entry in run.inputs.dataset_inputs] == ["slides"]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (("2 of 3 slides", ""), "clean: 2 of 3 slides ("),
        (("0.583", "5 trials"), "clean: macro-F1 0.583, 5 trials ("),
        (("v1 champion", "by force"), "clean: v1 champion, by force ("),
        (("", ""), "clean: done ("),
    ],
)
def test_the_terminal_says_which_stage_ended_and_what_its_number_is(
    store: Path, capsys: pytest.CaptureFixture[str], named: tuple[str, str], said: str
) -> None:
    run_stage("clean", lambda run: run.name(*named), settings={}, inputs={})
    assert capsys.readouterr().out.startswith(said)


def test_a_stage_inside_a_run_is_its_child(store: Path) -> None:
    _, body = counting_body()
    with mlflow.start_run() as parent:
        result = run_stage("clean", body, settings={}, inputs={})
    assert mlflow.get_run(result.run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_the_run_that_mlflow_opened_is_used_in_our_experiment_and_only_noted_in_default(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, body = counting_body()
    ours = MlflowClient().create_run(experiment_id()).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", ours)
    assert run_stage("clean", body, settings={}, inputs={}).run_id == ours
    default = MlflowClient().create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", default)
    assert run_stage("clean", body, settings={"a": 1}, inputs={}).run_id != default
    assert "doctogres" in mlflow.get_run(default).data.tags["mlflow.note.content"]


def test_an_experiment_chosen_by_the_user_is_kept(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = mlflow.create_experiment("colon")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", chosen)
    connect()
    assert experiment_id() == chosen


def test_a_result_of_any_length_is_read_again(store):
    metrics = {f"f1/{'klasse ' * 8}{number}": number / 1000 for number in range(300)}

    def body(run):
        run.log_metrics(metrics)

    made = run_stage("clean", body, settings={}, inputs={})
    again = run_stage("clean", body, settings={}, inputs={})
    assert again.reused
    assert again.metrics == made.metrics
    assert len(made.metrics) == 300


def test_names_that_mlflow_cannot_tell_apart_stay_apart(store):
    result = run_stage(
        "clean", lambda run: run.log_metrics({"f1/<2": 0.1, "f1/>2": 0.9, "f1/a": 0.5}), settings={}, inputs={}
    )
    assert sorted(result.metrics.values()) == [0.1, 0.5, 0.9]
    assert result.metrics["f1/a"] == 0.5
    logged = MlflowClient().get_run(result.run_id).data.metrics
    assert {name for name in logged if name.startswith("f1/")} == set(result.metrics)


def test_a_run_whose_artifacts_are_gone_is_repeated(store, capsys):
    def body(run):
        run.publish("cohort").write_text("rows")

    made = run_stage("clean", body, settings={}, inputs={})
    uri = MlflowClient().get_run(made.run_id).info.artifact_uri
    shutil.rmtree(uri.removeprefix("file://"))
    again = run_stage("clean", body, settings={}, inputs={})
    assert not again.reused
    assert (
        f"{made.run_id}: the run's result cannot be read: runs:/{made.run_id}/result.json could not be fetched"
        in capsys.readouterr().out
    )
