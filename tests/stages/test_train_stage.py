"""The train stage: killed half-way, and in two processes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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
from doctogres.evaluation.scores import Scores
from doctogres.files import workspace
from doctogres.liveness import this_process
from doctogres.model.ensemble import Ensemble
from doctogres.model.fusion import slide_distances
from doctogres.model.network import create_network, save_weights
from doctogres.patches.manifest import Manifest
from doctogres.presets import load_preset
from doctogres.serving.loading import load_classifier
from doctogres.settings import AGGREGATIONS
from doctogres.slides.figures import figures
from doctogres.slides.splits import HOLDOUT, LeakageError
from doctogres.slides.tissue import ReducedPicture
from doctogres.stages import train as stage
from doctogres.stages.clean import clean
from doctogres.stages.evaluate import evaluate
from doctogres.stages.patch import patch
from doctogres.tracking.runs import WORKER_TAG
from doctogres.tracking.store import experiment_id
from doctogres.tracking.upstream import find_artifact
from doctogres.training.assessment import START, TURNED, assess_members, classifier_of, view_outputs, ways
from doctogres.training.folds import split_folds
from doctogres.training.part import training_parts
from doctogres.training.probes import ProbeSources
from doctogres.training.reference import reference_of
from doctogres.training.sources import sources_of

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

    def killing(view, of, epoch):
        log_epoch(view, of, epoch)
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
    logged = MlflowClient().get_metric_history(resumed.run_id, "fold0/slide_macro_f1")
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
    (source,), (network,) = classifier.card.sources, classifier.networks
    assert source.members == len(network.members) == len(network.attention) == 8
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
    limit = classifier.card.novelty
    assert limit is not None
    assert (limit.distances, limit.groups) == (2 * len(training), training["group"].nunique())
    assert len(network.gaussians) == 8
    assert answer.novelty is not None
    assert answer.abstained == (answer.confidence < classifier.card.calibration.threshold or answer.novelty > 1)
    untouched = classifier.adjusted(tta=False).classify(*read_slide(small_cohort, held)[:2])
    assert untouched.novelty == pytest.approx(answer.novelty, rel=1e-4)  # measured on the patches as they are
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
    logged = MlflowClient().get_metric_history(second.run_id, "fold0/slide_macro_f1")
    assert [metric.step for metric in logged] == [0, 1, 2, 3, 4]

    anew = run(patches, given=given, rerun=True)
    assert {file: file.stat().st_ino for file in (store / "workspace/networks").iterdir()} != files
    for name in ("oof_predictions", "aggregations"):
        assert table(second, name).equals(table(anew, name))
    weights = [load_classifier(result.artifacts["model"]).networks[0].state_dict() for result in (second, anew)]
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
    assert load_classifier(trained.artifacts["model"]).card.sources[0].architecture.mean == expected
    assert ("have no configuration" in capsys.readouterr().out) is not configured
    said = MlflowClient().get_run(trained.run_id).data.params["train.input"]
    assert said.startswith(f"mean {', '.join(map(str, expected))}, deviation")
    assert ("encoder.json" in said) is configured
    MlflowClient().delete_run(trained.run_id)
    again = run(patches, given=given)  # the finished network, not trained again
    assert load_classifier(again.artifacts["model"]).card.sources[0].architecture.mean == expected


PROBE = {
    "recipe": "probe", "patching": "window,regions", "window": 96, "oof_folds": 0, "aggregation": "area_mean", "tta": True,
    "head": "blend", "fusion": "log_probabilities", "view_weights": "window:2",
}  # fmt: skip


@pytest.fixture
def views(store, small_cohort):
    """Runs of `clean` and `patch` with windows and tight boxes."""
    preset = load_preset("demo", QUICK | PROBE)
    cleaned = clean(data=str(small_cohort), preset=preset, seed=5)
    return cleaned, patch(cohort=cleaned.run_id, preset=preset, data=str(small_cohort))


def test_the_run_of_patch_counts_every_view(views):
    _, cut = views
    rows = Manifest.read(find_artifact(cut.run_id, stage="patch", name="patches").path).rows
    kept = rows[rows["outcome"] == "kept"].groupby("view").size()
    logged = mlflow.get_run(cut.run_id).data
    assert logged.metrics["patches/kept"] == kept.sum()
    assert logged.metrics["patches/dropped"] == len(rows) - kept.sum()
    note = logged.tags["mlflow.note.content"]
    assert f"Cut {kept.sum()} patches from" in note
    assert f"{kept['window96']} window96 (median" in note
    assert f"{kept['regions']} regions (median" in note


def test_every_site_is_scored_by_a_training_without_it(store, small_cohort, capsys):
    root = Path(shutil.copytree(small_cohort, store / "sited"))
    labels = pd.read_csv(root / "train_labels.csv").sort_values("label", ignore_index=True)
    labels["group"] = [f"p{number}" for number in range(len(labels))]
    labels["site"] = labels.groupby("label").cumcount().mod(3).map({0: "south", 1: "north", 2: "north"})
    labels.to_csv(root / "train_labels.csv", index=False)
    preset = load_preset("demo", QUICK | PROBE | {"folds_by": "site"})
    cleaned = clean(data=str(root), preset=preset, seed=5)
    assert "clean: fold0 is site north, fold1 is site south" in capsys.readouterr().out
    cut = patch(cohort=cleaned.run_id, preset=preset, data=str(root))
    result = run(cut.run_id, given=PROBE)
    oof = table(result, "oof_predictions")
    site = dict(zip(labels["sample_index"].str.removesuffix(".png"), labels["site"], strict=True))
    assert oof["slide_id"].map(site).tolist() == oof["fold"].map({"fold0": "north", "fold1": "south"}).tolist()
    note = mlflow.get_run(result.run_id).data.tags["mlflow.note.content"]
    assert "One answer for all slides of a group: none (no group has several slides)." in note.replace("\\", "")
    evidence = load_classifier(result.artifacts["model"]).evidence
    left_out = {one["value"]: one for one in evidence["left_out"]}
    assert left_out.keys() == {"north", "south"}
    slides = oof.drop_duplicates("slide_id")["slide_id"].map(site).value_counts().to_dict()
    assert {name: one["slides"] for name, one in left_out.items()} == slides
    assert "oof/left_out/south" not in result.metrics  # too few patients
    assert result.metrics["oof/left_out/north"] == left_out["north"]["metrics"]["macro_f1"]["value"]
    preset = load_preset("demo", QUICK | PROBE)
    scored = evaluate(model=result.run_id, cohort=cleaned.run_id, split=HOLDOUT, preset=preset, seed=5)
    page = Path(mlflow.artifacts.download_artifacts(artifact_uri=scored.artifacts["report"])).read_text()
    assert "Every site left out in turn" in page
    assert {
        one.column for one in Scores.read(find_artifact(scored.run_id, stage="evaluate", name="metrics").path).subgroups
    } == {"site"}
    with pytest.raises(ParameterError, match="folds_by"):
        run(cut.run_id, given=PROBE | {"repeats": 2, "oof_folds": 0})


def test_a_probe_is_a_model_like_any_other(store, views, small_cohort):
    cleaned, cut = views
    result = run(cut.run_id, given=PROBE)
    classifier = load_classifier(result.artifacts["model"])
    assert classifier.card.recipe == "probe"
    assert [(source.view, source.members) for source in classifier.card.sources] == [("window96", 1), ("regions", 1)]
    cohort = pd.read_parquet(find_artifact("latest", stage="clean", name="cohort").path)
    training = cohort[cohort["fold"].notna() & (cohort["fold"] != HOLDOUT)]
    oof = table(result, "oof_predictions")
    assert set(oof["slide_id"]) == set(training["slide_id"])
    assert set(classifier.card.seen.pictures) == set(training["image_md5"])
    assert {len(values) for values in classifier.evidence["reference"].values()} == {len(training)}
    fits = table(result, "history")
    assert len(fits) == 4 * 2
    preset = load_preset("demo", QUICK | PROBE)
    scored = evaluate(model=result.run_id, cohort=cleaned.run_id, split=HOLDOUT, preset=preset, seed=5)
    assert 0 <= scored.metrics["macro_f1"] <= 1
    assert classifier.card.labels is not None
    assert (classifier.card.labels.target, classifier.card.labels.slides) == (0.9, len(training))
    assert scored.metrics["ci/labels_coverage_low"] <= scored.metrics["labels_coverage"]
    assert 1 <= scored.metrics["labels_size"] <= 4
    assert 0 <= scored.metrics["novel"] <= 1


@pytest.mark.parametrize("stages", [0, -2])
def test_a_probes_out_of_fold_answers_are_those_of_its_network(store, views, small_cohort, stages):
    """A model whose only fold left out is the first one, served: the same answers, through features or through pixels."""
    _, cut = views
    manifest = Manifest.read(find_artifact(cut.run_id, stage="patch", name="patches").path)
    preset = load_preset("demo", QUICK | PROBE | {"stages": stages})
    parts = training_parts(manifest, manifest.patch.views, cache=workspace())
    sources = sources_of(preset, manifest.patch)
    probes = ProbeSources.load(preset, parts, sources, 5)
    split = split_folds(preset.train, parts, sources, 5)[0]
    members = probes.members([split])
    heads = probes.heads({source: fold.train for source, fold in split.items()})
    kept: list[Any] = []
    for source, head in heads.items():
        network = probes.features[source].new_network().eval()
        head.put_into(network, source.backbone)
        kept.append((source, Ensemble([network], [], [probes.gaussian(source, split[source].train)])))
    everything = probes.members(split_folds(preset.train, parts, sources, 5))
    assessment = assess_members(parts, everything, preset, 5)
    model = classifier_of(manifest, parts, kept, assessment, preset)
    expected = ways(members, preset.answer)[TURNED]
    assert model.card.novelty is not None
    novelty = model.card.novelty.novelty(slide_distances(view_outputs(members, logits="plain")))
    reference = reference_of(manifest, parts, everything, assessment, preset.answer).to_dict("records")
    cohort = pd.read_parquet(find_artifact("latest", stage="clean", name="cohort").path).set_index("slide_id")
    for slide, probabilities, unlike, kept_row in zip(
        members[0].predictions.slides, expected, novelty, reference, strict=False
    ):
        row = next(cohort.loc[[slide]].reset_index().itertuples())
        rgb, mask, _ = read_slide(small_cohort, row)
        answer = model.classify(rgb, mask)
        np.testing.assert_allclose(answer.raw, probabilities, atol=1e-4)
        assert answer.novelty == pytest.approx(unlike, rel=1e-2)
        served = {"n_patches": len(answer.patches), **figures(rgb, mask, ReducedPicture.of(rgb))}
        served |= {"patch_side": answer.patches[["width", "height"]].max(axis=1).median()}
        served |= {"confidence": answer.confidence, "novelty": answer.novelty}
        assert kept_row.pop("label") == answer.label
        assert kept_row == pytest.approx(served, rel=1e-2, abs=1e-4)


@pytest.mark.parametrize("recipe", ["probe", "finetune"])
def test_a_model_of_everything_is_a_second_one_and_knows_that_it_saw_the_hold_out(store, views, recipe):
    cleaned, cut = views
    given = {**PROBE, "recipe": recipe, "views": "window", "final": "all", "epochs": 1, "oof_folds": 2}
    result = run(cut.run_id, given=given)
    first, second = (load_classifier(result.artifacts[name]) for name in ("model", "final_model"))
    cohort = pd.read_parquet(find_artifact("latest", stage="clean", name="cohort").path)
    used = cohort[cohort["fold"].notna()]
    assert set(second.card.seen.pictures) == set(used["image_md5"])
    assert len(first.card.seen.pictures) < len(second.card.seen.pictures)
    assert first.card.calibration == second.card.calibration
    assert first.card.novelty == second.card.novelty
    means = [model.networks[0].state_dict()["gaussians.0.mean"] for model in (first, second)]
    assert not torch.equal(*means)
    preset = load_preset("demo", QUICK | given)
    with pytest.raises(LeakageError):
        evaluate(model=result.artifacts["final_model"], cohort=cleaned.run_id, split=HOLDOUT, preset=preset, seed=5)


def test_fine_tuning_starts_from_a_probe_and_says_what_it_added(store, views, tmp_path):
    torch.manual_seed(0)
    file = tmp_path / "mine.safetensors"
    save_weights(create_network("test_resnet", classes=3, size=64), file)
    given = {**PROBE, "recipe": "finetune", "views": "window", "epochs": 1, "oof_folds": 2, "aggregation": "mean"}
    result = run(views[1].run_id, given=given | {"weights": str(file), "start": "probe"})
    compared = table(result, "aggregations").set_index("name")
    assert compared.loc[START, "against"] == "mean"
    note = MlflowClient().get_run(result.run_id).data.tags["mlflow.note.content"]
    assert "the probe it started from" in note
    noise = run(views[1].run_id, given=given | {"weights": str(file), "start": "random"})
    assert START not in set(table(noise, "aggregations")["name"])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"views": "tiles"}, r"views=tiles: tiles128 was not cut \(only window96, regions\); give it in patching"),
        ({"recipe": "finetune", "fusion": "features"}, "fusion=features: only the probe"),
    ],
)
def test_views_that_cannot_be_used_are_refused_before_the_training(store, views, given, problem):
    with pytest.raises(ParameterError, match=problem):
        run(views[1].run_id, given=PROBE | given)
