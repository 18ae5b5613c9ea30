"""The train stage: killed half-way, and in two processes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from mlflow.tracking import MlflowClient
from safetensors.torch import save_file

from doctogres.cleaning.reading import read_slide
from doctogres.errors import ParameterError
from doctogres.liveness import this_process
from doctogres.presets import load_preset
from doctogres.serving.loading import load_classifier
from doctogres.settings import AGGREGATIONS
from doctogres.slides.splits import HOLDOUT
from doctogres.stages import train as stage
from doctogres.stages.clean import clean
from doctogres.stages.patch import patch
from doctogres.tracking.runs import WORKER_TAG
from doctogres.tracking.store import experiment_id
from doctogres.tracking.upstream import find_artifact
from doctogres.training.left_out import TURNED

pytestmark = pytest.mark.slow
QUICK = {"epochs": 5, "unfreeze_every": 1, "oof_folds": 2}


@pytest.fixture
def patches(store, small_cohort):
    """A run of `patch` in the store."""
    preset = load_preset("demo", QUICK)
    cleaned = clean(data=str(small_cohort), preset=preset, seed=5)
    return patch(cohort=cleaned.run_id, preset=preset, data=str(small_cohort)).run_id


def table(result, name):
    path = Path(mlflow.artifacts.download_artifacts(artifact_uri=result.artifacts[name]))
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def run(patches, *, given=None, **options):
    preset = load_preset("demo", QUICK | (given or {}))
    return stage.train(patches=patches, params="none", preset=preset, seed=5, **options)


def left_open(run_id):
    """Makes a run look as a SIGKILL leaves it."""
    died = subprocess.Popen([sys.executable, "-c", ""])
    died.wait()
    MlflowClient().set_tag(run_id, WORKER_TAG, json.dumps({**this_process(), "process": died.pid}))
    MlflowClient().update_run(run_id, status="RUNNING")
    return run_id


def test_an_interrupted_run_goes_on_in_the_next_one(store, patches, monkeypatch, capsys):
    whole = run(patches)
    networks = store / "workspace/networks"
    assert len(list(networks.glob("*.pt"))) == 2
    assert not list(networks.glob("*.checkpoint"))

    class Killed(BaseException):
        pass

    log_epoch = stage._log_epoch

    def killing(first, of, epoch):
        log_epoch(first, of, epoch)
        if epoch.epoch == 2:
            raise Killed

    MlflowClient().delete_run(whole.run_id)
    shutil.rmtree(networks)
    with monkeypatch.context() as patcher, pytest.raises(Killed):
        patcher.setattr(stage, "_log_epoch", killing)
        run(patches)
    assert [file.suffix for file in networks.iterdir()] == [".checkpoint"]
    dead = left_open(MlflowClient().search_runs([experiment_id()], "tags.`doctogres.stage` = 'train'")[0].info.run_id)
    resumed = run(patches)
    assert MlflowClient().get_run(dead).info.status == "KILLED"
    assert resumed.run_id in MlflowClient().get_run(dead).data.tags["mlflow.note.content"]
    assert "resuming the network for fold0" in capsys.readouterr().out
    assert not list(networks.glob("*.checkpoint"))
    assert not resumed.reused
    curves = [table(result, "history").drop(columns="patches_per_s") for result in (whole, resumed)]
    assert curves[0].equals(curves[1])
    assert table(whole, "oof_predictions").equals(table(resumed, "oof_predictions"))
    logged = MlflowClient().get_metric_history(resumed.run_id, "slide_macro_f1")
    assert [metric.step for metric in logged] == [0, 1, 2, 3, 4]


def test_all_folds_networks_of_two_draws_answer_as_one_model(store, patches, small_cohort):
    given = {"epochs": 1, "oof_folds": 0, "repeats": 2, "ensemble": True, "aggregation": "attention", "tta": True}
    result = run(patches, given=given)
    cohort = pd.read_parquet(find_artifact("latest", stage="clean", name="cohort").path)
    training = cohort[cohort["fold"].notna() & (cohort["fold"] != HOLDOUT)]
    oof = table(result, "oof_predictions")
    assert all(set(rows["slide_id"]) == set(training["slide_id"]) for _, rows in oof.groupby("repeat"))
    assert oof.groupby(["repeat", "patch_id"]).size().eq(1).all()
    first, second = (
        oof[oof["repeat"] == repeat].drop_duplicates("slide_id").set_index("slide_id")["fold"] for repeat in (0, 1)
    )
    assert (first != second.loc[first.index]).any()

    classifier = load_classifier(result.artifacts["model"])
    assert classifier.card.members == len(classifier.network.members) == len(classifier.network.attention) == 8
    assert set(classifier.card.seen.pictures) == set(training["image_md5"])
    assert classifier.card.calibration.slides == len(training)
    ways = table(result, "aggregations").set_index("name")
    assert set(ways.index) == {*AGGREGATIONS, TURNED}
    assert ways.index[ways["chosen"]].tolist() == [TURNED]
    assert ways.loc[TURNED, "against"] == "attention"
    assert classifier.evidence["folds"] == 4

    held = next(cohort[cohort["fold"] == HOLDOUT].itertuples())
    answer = classifier.classify(*read_slide(small_cohort, held)[:2])
    assert answer.probabilities.sum() == pytest.approx(1)
    assert answer.confidence == answer.probabilities.max()
    assert answer.abstained == (answer.confidence < classifier.card.calibration.threshold)
    untouched = classifier.adjusted(tta=False).classify(*read_slide(small_cohort, held)[:2])
    assert not np.allclose(answer.probabilities, untouched.probabilities, atol=1e-6)


def test_what_a_setting_cannot_change_is_not_trained_again(store, patches, capsys):
    first = run(patches)
    files = {file: file.stat().st_ino for file in (store / "workspace/networks").iterdir()}
    capsys.readouterr()
    given = {"resamples": 300, "aggregation": "area_mean", "tta": True, "target_precision": 0.8, "ensemble": True}
    second = run(patches, given=given)
    assert not second.reused
    assert capsys.readouterr().out.count("train: reusing the network for ") == 2
    assert {file: file.stat().st_ino for file in (store / "workspace/networks").iterdir()} == files
    logged = MlflowClient().get_metric_history(second.run_id, "slide_macro_f1")
    assert [metric.step for metric in logged] == [0, 1, 2, 3, 4]

    anew = run(patches, given=given, rerun=True)
    assert {file: file.stat().st_ino for file in (store / "workspace/networks").iterdir()} != files
    for name in ("oof_predictions", "aggregations"):
        assert table(second, name).equals(table(anew, name))
    weights = [load_classifier(result.artifacts["model"]).network.state_dict() for result in (second, anew)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert (
        table(first, "history")
        .drop(columns="patches_per_s")
        .equals(table(anew, "history").drop(columns="patches_per_s"))
    )

    capsys.readouterr()
    run(patches, given={"oof_folds": 3, "dropout": 0.1})
    assert capsys.readouterr().out.count("reusing the network for") == 2
    run(patches, given={"dropout": 0.2})
    assert "reusing the network for" not in capsys.readouterr().out


@pytest.mark.parametrize("given", ["zip", "folder around it"])
def test_the_slides_are_found_in_whatever_data_names(store, patches, small_cohort, given):
    whole = run(patches, given={"epochs": 1})
    shutil.rmtree(store / "workspace")
    if given == "zip":
        data = shutil.make_archive("moved", "zip", small_cohort.parent, small_cohort.name)
    else:
        data = shutil.copytree(small_cohort, store / "around" / "cohort").parent
    again = run(patches, given={"epochs": 1}, data=str(data), rerun=True)
    assert table(whole, "oof_predictions").equals(table(again, "oof_predictions"))


def test_several_draws_need_every_fold(store, patches):
    with pytest.raises(ParameterError, match=r"repeats=2: needs every fold .* oof_folds=0, not 2"):
        run(patches, given={"repeats": 2})


def test_only_the_leader_of_two_processes_talks_to_mlflow(store, patches):
    root = Path(__file__).parents[2]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "entrypoints.train", "--patches", patches, "--epochs", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(lines) == 1
    runs = MlflowClient().search_runs([experiment_id()], "tags.`doctogres.stage` = 'train'")
    assert [run.info.run_id for run in runs] == [json.loads(lines[0])["run_id"]]
    assert runs[0].data.params["train.processes"] == "2"


def test_another_stage_refuses_to_run_in_several_processes(store):
    root = Path(__file__).parents[2]
    environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "1"}
    command = [sys.executable, "-m", "entrypoints.clean"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert "clean runs in a single process" in done.stderr


@pytest.mark.parametrize(("configured", "expected"), [(True, (0.7, 0.5, 0.6)), (False, (0.5, 0.5, 0.5))])
def test_a_run_says_how_the_input_of_a_weights_file_is_normalised(
    store, patches, tmp_path, capsys, configured, expected
):
    path = tmp_path / "encoder.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), path)
    if configured:
        stated = {"mean": expected, "std": (0.2, 0.2, 0.2)}
        path.with_suffix(".json").write_text(json.dumps({"architecture": "test_resnet", "pretrained_cfg": stated}))
    given = {"epochs": 1, "oof_folds": 1, "weights": str(path)}
    trained = run(patches, given=given)
    assert load_classifier(trained.artifacts["model"]).card.mean == expected
    assert ("the weights have no configuration" in capsys.readouterr().out) is not configured
    said = MlflowClient().get_run(trained.run_id).data.params["train.input"]
    assert said.startswith(f"mean {', '.join(map(str, expected))}, deviation")
    assert ("encoder.json" in said) is configured
    MlflowClient().delete_run(trained.run_id)
    again = run(patches, given=given)  # the finished network, not trained again
    assert load_classifier(again.artifacts["model"]).card.mean == expected
