"""The whole flow on a small cohort: what a person finds in the tracking store, and that stages agree with each other."""

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.tracking import MlflowClient

from doctogres.disk import size_text
from doctogres.pages import markdown
from doctogres.presets import load_preset
from doctogres.settings import Preset
from doctogres.stages.candidate import candidate_of
from doctogres.stages.evaluate import evaluate
from doctogres.stages.main import run_all
from doctogres.stages.patch import patch
from doctogres.stages.predict import predict
from doctogres.stages.register import register
from doctogres.stages.train import train
from doctogres.tracking.runs import DATA_TAG, FINGERPRINT_TAG, NOTE_TAG, StageResult
from doctogres.tracking.store import experiment_id
from doctogres.tracking.upstream import find_artifact
from entrypoints.reference import ROOT
from tests.servers import json_line
from tests.stores import measured, used_models

pytestmark = pytest.mark.slow
STAGES = ("clean", "patch", "tune", "train", "evaluate", "register", "predict")


@pytest.fixture(scope="module")
def quick() -> Preset:
    return load_preset("demo", {"epochs": 3, "trials": 2, "trial_epochs": 2, "unfreeze_every": 1, "resamples": 200})


@pytest.fixture(scope="module")
def flow(module_store: Path, small_cohort: Path, quick: Preset) -> StageResult:
    """One run of everything in a store of its own: what it returned."""
    return run_all(data=str(small_cohort), preset=quick, seed=5)


def child(flow: StageResult, stage: str) -> mlflow.entities.Run:
    query = f"tags.mlflow.parentRunId = '{flow.run_id}' and tags.`doctogres.stage` = '{stage}'"
    (run,) = MlflowClient().search_runs([experiment_id()], query)
    return run


def local(uri: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))


def test_every_stage_is_a_finished_child_that_a_person_can_read(flow: StageResult) -> None:
    for stage in STAGES:
        run = child(flow, stage)
        assert run.info.status == "FINISHED"
        assert stage in run.info.run_name.split()
        assert run.data.metrics.keys() >= {"slides", "seconds"}
        assert len(run.data.tags["mlflow.note.content"]) > 40
        assert {FINGERPRINT_TAG, DATA_TAG, "doctogres.version"} <= run.data.tags.keys()
        assert (run.inputs and run.inputs.dataset_inputs) or stage == "register"
    digests = {child(flow, stage).data.tags[DATA_TAG] for stage in STAGES[:-1]}
    assert len(digests) == 1


def test_the_parents_page_begins_with_the_result_and_leads_to_every_stage(
    flow: StageResult, small_cohort: Path
) -> None:
    run = mlflow.get_run(flow.run_id)
    score = f"{flow.metrics['macro_f1']:.3f}"
    assert run.info.run_name == f"{score} main {small_cohort.name}"
    note = run.data.tags[NOTE_TAG]
    assert note.startswith(f"Macro-F1 on the hold-out: {score} [")
    assert "```" not in note
    for stage in STAGES:
        made = child(flow, stage).info
        assert f"- {stage}: [{markdown(made.run_name)}](#/experiments/{experiment_id()}/runs/{made.run_id}?" in note
    assert run.data.metrics.keys() >= {"macro_f1", "ci/macro_f1_low", "ci/macro_f1_high", "slides", "seconds"}


def test_the_parent_records_what_was_given_and_all_settings_in_a_file(flow: StageResult, quick: Preset) -> None:
    given = {
        "preset": "demo",
        "epochs": "3",
        "trials": "2",
        "trial_epochs": "2",
        "unfreeze_every": "1",
        "resamples": "200",
    }
    params = mlflow.get_run(flow.run_id).data.params
    assert params == given | {"data": params["data"], "seed": "5"}
    assert yaml.safe_load(local(f"runs:/{flow.run_id}/settings.yaml").read_text())["train"] == quick.train.model_dump(
        mode="json"
    )


def test_the_tags_are_few_and_no_long_digest_stands_there_twice(flow: StageResult) -> None:
    for run in (mlflow.get_run(flow.run_id), *(child(flow, stage) for stage in STAGES)):
        tags = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
        assert tags.pop("git.dirty") == "false"
        assert all(name.startswith("doctogres.") for name in tags)
        digests = [value for value in tags.values() if re.fullmatch(r"[0-9a-f]{32,}", value)]
        assert len(digests) == len(set(digests)) <= 2
        assert len(tags) <= 10


def test_the_json_line_holds_what_the_next_step_needs(flow: StageResult) -> None:
    line = json.loads(flow.to_json())
    assert line["stage"] == "main"
    assert {"stage", "run_id", "artifacts", "metrics"} <= line.keys()
    for uri in line["artifacts"].values():
        assert local(uri).exists()
    assert {"macro_f1", "ci/macro_f1_low", "ci/macro_f1_high", "null/majority/macro_f1"} <= line["metrics"].keys()


def test_a_reused_run_loads_no_framework_of_networks(flow: StageResult, small_cohort: Path, quick: Preset) -> None:
    settings = {"epochs": 3, "trials": 2, "trial_epochs": 2, "unfreeze_every": 1, "resamples": 200, "seed": 5}
    options = [f"--{name}={value}" for name, value in settings.items()]
    code = f"""
import sys
from entrypoints.main import command
command.main(["--data={small_cohort}", *{options}])
print(sorted({{"torch", "timm", "openvino", "optuna", "matplotlib", "accelerate"}} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("reused the finished run") == len(STAGES)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_models_page_shows_the_hold_out_and_the_out_of_fold_score_and_nothing_of_an_epoch(
    flow: StageResult,
) -> None:
    model = MlflowClient().get_logged_model(flow.artifacts["train/model"].removeprefix("models:/"))
    probe = child(flow, "train").data.params["train.recipe"] == "probe"  # the study chooses
    assert model.name == f"doctogres-test_resnet{'-probe' if probe else ''}"
    shown = measured(model.model_id)
    assert shown["macro_f1"].value == flow.metrics["macro_f1"]
    assert shown["macro_f1"].dataset_name == "slides (holdout)"
    assert shown["oof/macro_f1"].dataset_name == "patches"
    assert not shown.keys() & {"train_loss", "val_loss", "slide_macro_f1", "system/cpu_utilization_percentage"}
    for stage in ("evaluate", "predict"):
        assert used_models(child(flow, stage).info.run_id) == [model.model_id]


def test_the_training_has_curves_per_epoch_and_unfreezes(flow: StageResult, quick: Preset) -> None:
    run_id = train(patches=flow.artifacts["patch/patches"], params="none", preset=quick, seed=5).run_id
    for name in ("train_loss", "val_loss", "slide_macro_f1", "patch_macro_f1", "learning_rate", "patches_per_s"):
        assert len(MlflowClient().get_metric_history(run_id, f"fold0/{name}")) == quick.train.epochs
    trainable = [point.value for point in MlflowClient().get_metric_history(run_id, "fold0/trainable_parameters")]
    assert trainable == sorted(set(trainable))
    # If the study chose other settings, the flow's own run stays the latest.
    if run_id != child(flow, "train").info.run_id:
        MlflowClient().delete_run(run_id)


def test_trials_are_readable_children_of_the_study(flow: StageResult, quick: Preset) -> None:
    tune = child(flow, "tune").info.run_id
    trials = MlflowClient().search_runs([experiment_id()], f"tags.mlflow.parentRunId = '{tune}'")
    named = {run.info.run_name.split()[-1]: run for run in trials}
    assert named.keys() == {f"trial-{number:03d}" for number in range(quick.tune.trials)}
    assert all(run.info.status == "FINISHED" and run.data.params for run in trials)
    assert all(next(iter(run.data.metrics)) == "macro_f1" for run in trials)  # on which the UI's comparison opens
    first = named["trial-000"]
    assert first.info.run_name == f"{first.data.metrics['macro_f1']:.3f} trial-000"
    assert float(first.data.params["train.learning_rate"]) == quick.train.learning_rate


def test_the_hold_out_is_unseen_by_training_and_no_group_is_on_two_sides(flow: StageResult) -> None:
    cohort = pd.read_parquet(local(flow.artifacts["clean/cohort"]))
    oof = pd.read_parquet(local(flow.artifacts["train/oof_predictions"]))
    holdout = set(cohort.loc[cohort["fold"] == "holdout", "slide_id"])
    assert holdout
    assert not holdout & set(oof["slide_id"])
    assert set(pd.read_csv(local(flow.artifacts["evaluate/predictions"]))["slide_id"]) == holdout
    assert (cohort.dropna(subset=["fold"]).groupby("group")["fold"].nunique() == 1).all()


def test_the_served_answer_is_the_evaluated_one(flow: StageResult, small_cohort: Path) -> None:
    predictions = pd.read_csv(local(flow.artifacts["evaluate/predictions"])).set_index("slide_id")
    cohort = pd.read_parquet(local(flow.artifacts["clean/cohort"])).set_index("slide_id")
    slides = list(predictions.index[:3])
    request = pd.DataFrame({
        "slide_id": slides,
        "image": [(small_cohort / cohort.loc[slide, "image"]).read_bytes() for slide in slides],
        "mask": [(small_cohort / cohort.loc[slide, "mask"]).read_bytes() for slide in slides],
    })  # fmt: skip
    answers = mlflow.pyfunc.load_model(flow.artifacts["train/model"]).predict(request)
    for slide, answer in zip(slides, answers, strict=True):
        evaluated = predictions.loc[slide]
        assert (answer["slide_id"], answer["label"], answer["error"]) == (slide, evaluated["predicted"], None)
        assert answer["n_patches"] == evaluated["n_patches"] == len(answer["patches"])
        for name, share in answer["probabilities"].items():
            assert share == pytest.approx(evaluated[f"p_{name}"], abs=1e-5)  # evaluated one by one, served in one batch


def test_the_submission_has_the_challenges_header_and_order(
    flow: StageResult, small_cohort: Path, quick: Preset
) -> None:
    submission = local(flow.artifacts["predict/submission"])
    assert submission.read_text().splitlines()[0] == "sample_index,label"
    names = pd.read_csv(submission)["sample_index"].tolist()
    assert names == sorted(path.name for path in (small_cohort / "test_data").glob("img_*.png"))
    again = predict(data=str(small_cohort), model="latest", preset=quick, output="copy.csv")
    assert Path("copy.csv").read_text() == local(again.artifacts["submission"]).read_text()


def test_a_model_that_shows_nothing_is_not_registered_and_answers_the_test_slides_all_the_same(
    flow: StageResult,
) -> None:
    assert flow.metrics["ci/macro_f1_low"] <= flow.metrics["null/chance/macro_f1"]  # three epochs are too few
    assert "model" not in flow.artifacts
    assert not MlflowClient().search_registered_models()
    summary = flow.for_people()
    assert "not registered" in summary
    assert "does not lie entirely above the null models" in summary
    assert "there is none yet" in summary
    assert child(flow, "predict").data.tags["doctogres.input.model"] == flow.artifacts["train/model"]


def test_a_second_run_repeats_nothing_and_one_by_one_equals_all_at_once(
    flow: StageResult, small_cohort: Path, quick: Preset, capsys: pytest.CaptureFixture[str]
) -> None:
    again = run_all(data=str(small_cohort), preset=quick, seed=5)
    assert again.artifacts == flow.artifacts
    assert len(re.findall("reused the finished run", capsys.readouterr().out)) == len(STAGES)
    assert patch(cohort="latest", preset=quick).artifacts["patches"] == flow.artifacts["patch/patches"]
    for data in (
        "",
        str(small_cohort),
    ):  # where the slides lie changes nothing as long as they lie where they were read
        registered = register(candidate_of(evaluation="latest", preset=quick, seed=5, data=data))
        assert registered.run_id == child(flow, "register").info.run_id


def test_the_chosen_preset_is_recorded_promised_and_reused_like_any_other(
    flow: StageResult, small_cohort: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"epochs": 3, "trials": 2, "trial_epochs": 2, "unfreeze_every": 1, "resamples": 200, "seed": 5}
    options = [f"--data={small_cohort}", "--preset=auto", *(f"--{name}={value}" for name, value in settings.items())]
    importlib.import_module("entrypoints.main").command.main(options)
    said = capsys.readouterr().out
    assert said.count("reused the finished run") == len(STAGES)  # as with preset=demo
    lines = said.splitlines()
    assert lines[0].startswith("preset=auto: demo, because demo_data made these synthetic slides")
    places = [lines.index(line) for line in lines if line.startswith("main: stage ")]
    assert [lines[place].split(",")[0] for place in places] == [
        f"main: stage {number} of 7: {stage}" for number, stage in enumerate(STAGES, 1)
    ]
    run = mlflow.get_run(json_line(said)["run_id"])
    assert run.data.params["preset"] == "demo"
    assert run.data.params["auto"] == lines[0].removeprefix("preset=auto: ")
    promised = {name: value for name, value in run.data.metrics.items() if name.startswith("promised/")}
    assert promised.keys() == {f"promised/{stage}" for stage in STAGES}
    assert all(value > 0 for value in promised.values())
    text = local(f"runs:/{run.info.run_id}/preset.txt").read_text()
    assert text.splitlines()[0] == lines[0]
    assert re.search(r"train \d\d:\d\d to \d\d:\d\d", text)  # the study searches both recipes
    assert all(f"main: {line}" in lines for line in text.splitlines()[1:])
    importlib.import_module("entrypoints.main").command.main(options)
    again = capsys.readouterr().out
    assert f"main: run {run.info.run_id} did the same in 00:" in again
    assert "measuring" not in again


def test_the_forced_version_has_a_card_whose_commands_make_the_model_again(
    flow: StageResult, quick: Preset, capsys: pytest.CaptureFixture[str]
) -> None:
    scored = child(flow, "evaluate").info.run_id
    number = (
        register(candidate_of(evaluation=scored, preset=quick, seed=5, promote="force"))
        .artifacts["model"]
        .rsplit("/", 1)[1]
    )
    version = MlflowClient().get_model_version("doctogres", number)
    assert float(version.tags["macro_f1"]) == pytest.approx(flow.metrics["macro_f1"], abs=1e-6)
    commands = [
        shlex.split(line) for line in (version.description or "").splitlines() if line.startswith("    mlflow run")
    ]
    made = {}
    for _, _, _, _, stage, _, _, *given in commands:
        options = [f"--{word}" for word in given if word != "-P"]
        capsys.readouterr()
        importlib.import_module(f"entrypoints.{stage}").command.main(options)
        made[stage] = json_line(capsys.readouterr().out)
    assert list(made) == ["clean", "patch", "train", "evaluate"]
    for stage, result in made.items():
        assert result["reused"], stage
        assert result["run_id"] == child(flow, stage).info.run_id


def test_a_repeated_training_gives_the_same_curve_and_answers(flow: StageResult, quick: Preset) -> None:
    patches = flow.artifacts["patch/patches"]
    tuned = flow.artifacts["tune/best_params"]
    again = train(patches=patches, params=tuned, preset=quick, seed=5, rerun=True)
    first, second = (
        pd.read_csv(local(uri)).drop(columns="patches_per_s", errors="ignore")  # a probe has none
        for uri in (flow.artifacts["train/history"], again.artifacts["history"])
    )
    pd.testing.assert_frame_equal(first, second)
    scored = evaluate(model=again.run_id, cohort=flow.artifacts["clean/cohort"], split="holdout", preset=quick, seed=5)
    assert scored.metrics["macro_f1"] == flow.metrics["macro_f1"]


def test_patch_says_what_the_pixels_take(flow: StageResult, module_store: Path) -> None:
    folder = module_store / "workspace" / "patches"
    size = size_text(sum(np.load(part).nbytes for part in folder.glob("*.npy")))
    assert f"The pixels take {size} in 1 part in {markdown(str(folder))}." in child(flow, "patch").data.tags[NOTE_TAG]


def test_training_rebuilds_lost_pixels(
    flow: StageResult, module_store: Path, quick: Preset, capsys: pytest.CaptureFixture[str]
) -> None:
    (cache,) = (module_store / "workspace").glob("patches/*.npy")
    pixels = np.load(cache).copy()
    cache.unlink()
    shorter = quick.model_copy(update={"train": quick.train.model_copy(update={"epochs": 1})})
    train(patches=flow.artifacts["patch/patches"], params="none", preset=shorter, seed=5)
    np.testing.assert_array_equal(np.load(cache), pixels)
    assert "1 of 1 parts of the pixels are missing" in capsys.readouterr().out


def test_the_test_slides_can_be_scored_with_their_own_labels(flow: StageResult, quick: Preset) -> None:
    scored = evaluate(
        model=flow.artifacts["train/model"], cohort=flow.artifacts["clean/cohort"], split="test", preset=quick, seed=5
    )
    metrics = json.loads(find_artifact(scored.run_id, stage="evaluate", name="metrics").path.read_text())
    assert metrics["split"] == "test"
    assert metrics["slides"] > 0
