"""evaluate with a classifier that was never trained: what it leaves, what it refuses, and that its page is whole."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from doctogres.cleaning.reading import read_slide
from doctogres.errors import CohortError, ParameterError, UpstreamError
from doctogres.evaluation.metrics import slide_metrics
from doctogres.evaluation.null_models import null_metrics
from doctogres.evaluation.pairs import ComparedModels
from doctogres.evaluation.predictions import PATCHES, Predictions
from doctogres.evaluation.scores import Scores
from doctogres.evaluation.unseen import check_unseen
from doctogres.files import digest
from doctogres.model.card import TrainingRecord
from doctogres.model.classifier import SlideClassifier, make_classifier
from doctogres.model.encoder import architecture_of
from doctogres.model.ensemble import Ensemble
from doctogres.model.group_answer import GroupRule
from doctogres.model.network import create_network
from doctogres.model.temperature import Calibration
from doctogres.presets import load_preset
from doctogres.registry.champion_comparison import read_evaluation
from doctogres.registry.versions import RegisteredModel
from doctogres.serving.answer_log import AnswerLog
from doctogres.settings import AnswerSettings, PatchSettings, Preset
from doctogres.slides.cohort import file_hashes
from doctogres.slides.selection import outside_cohort, slides_of
from doctogres.slides.splits import LeakageError
from doctogres.slides.table import CohortTable
from doctogres.stages import candidate
from doctogres.stages.candidate import Candidate
from doctogres.stages.clean import clean
from doctogres.stages.evaluate import evaluate
from doctogres.tracking.runs import PART_TAG, StageResult
from doctogres.tracking.upstream import find_artifact
from tests.serving.test_monitoring import model_of
from tests.stores import measured, used_models

pytestmark = pytest.mark.slow

CALIBRATION = Calibration.none(0.9).model_copy(update={"temperature": 0.5, "threshold": 0.3})


def untrained(
    classes: list[str],
    seen: TrainingRecord = TrainingRecord(),  # noqa: B008
    shares: dict[str, float] | None = None,
) -> SlideClassifier:
    torch.manual_seed(0)
    networks = [create_network("test_resnet", classes=len(classes), size=64) for _ in range(2)]
    return make_classifier(
        [(architecture_of("test_resnet"), "regions", Ensemble(networks))],
        recipe="finetune",
        classes=classes,
        class_shares=shares or {},
        patch=PatchSettings(patch_size=64),
        answer=AnswerSettings(),
        region_side=40,
        calibration=CALIBRATION,
        seen=seen,
        evidence={},
    )


@pytest.fixture
def preset() -> Preset:
    return load_preset("demo", {"resamples": 100})


@pytest.fixture
def cohort(store: Path, small_cohort: Path, preset: Preset) -> Path:
    """A cleaned cohort's table, in a store of its own."""
    return local(clean(data=str(small_cohort), preset=preset, seed=1).artifacts["cohort"])


def local(uri: str) -> Path:
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))


def evaluated(
    classifier: SlideClassifier,
    cohort: Path,
    preset: Preset,
    monkeypatch: pytest.MonkeyPatch,
    split: str = "holdout",
    model_id: str = "",
    answers: str = "",
    **reading: Any,
) -> StageResult:
    monkeypatch.setattr("doctogres.stages.evaluate.load_classifier", lambda address: classifier)
    monkeypatch.setattr("doctogres.stages.evaluate.training_record", lambda address: classifier.card.seen)
    model_id = model_id or mlflow.initialize_logged_model(name="made-here").model_id
    return evaluate(
        model=f"models:/{model_id}",
        cohort=str(cohort),
        split=split,
        preset=preset,
        answers=answers,
        geojson=True,
        seed=1,
        **reading,
    )


@pytest.mark.parametrize("split", ["holdout", "test"])
def test_what_it_leaves(
    cohort: Path, small_cohort: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    table = CohortTable.read(cohort).rows
    classes = sorted(table["label"].dropna().unique())
    result = evaluated(untrained(classes), cohort, preset, monkeypatch, split)
    answered = Predictions.read_csv(local(result.artifacts["predictions"]))
    predictions, rows = answered.rows, answered.probabilities
    assert answered.classes == tuple(classes)
    np.testing.assert_allclose(predictions["confidence"], rows.max(axis=1))
    assert (predictions["abstained"] == (predictions["confidence"] < 0.3)).all()
    folder = "train_data" if split == "holdout" else "test_data"
    names = [f"{folder}/{slide}.png" for slide in predictions["slide_id"]]
    assert predictions["image_md5"].tolist() == [file_hashes(small_cohort, names)[name] for name in names]

    of_patches = Predictions.read(PATCHES, local(result.artifacts["patch_predictions"]))
    patches = of_patches.rows
    assert list(patches.columns) == ["slide_id", "x", "y", "width", "height", "area", "predicted", "label"]
    assert patches["slide_id"].value_counts().to_dict() == predictions.set_index("slide_id")["n_patches"].to_dict()
    assert (patches["predicted"] == np.array(classes)[of_patches.probabilities.argmax(axis=1)]).all()
    truth = predictions.set_index("slide_id")["label"]
    assert (patches["label"] == patches["slide_id"].map(truth)).all()

    scores = Scores.read(local(result.artifacts["metrics"]))
    assert (scores.threshold, scores.split, scores.slides) == (0.3, split, len(predictions))
    assert scores.classes == tuple(classes)
    own = scores.metrics
    assert {"macro_f1", "coverage", "answered_accuracy", "patch/macro_f1", "ece"} <= own.keys()
    raw = rows**0.5 / (rows**0.5).sum(axis=1, keepdims=True)  # the temperature of 0.5 taken back
    before = slide_metrics(predictions["label"].tolist(), raw, classes, resamples=100)["ece"]
    assert scores.ece_raw.value == pytest.approx(before.value)
    assert own["ece"].value != pytest.approx(before.value)
    logged = {"macro_f1", "ci/macro_f1_low", "ci/macro_f1_high", "null/majority/macro_f1", "ci/patch/macro_f1_low"}
    assert logged <= result.metrics.keys()

    outlines = mlflow.MlflowClient().list_artifacts(result.run_id, "geojson")
    assert {Path(file.path).stem for file in outlines} == set(predictions["slide_id"])

    page = local(result.artifacts["report"]).read_bytes()
    assert len(page) < 5_000_000
    assert "heat map of patch 1" in page.decode()


def test_models_are_ranked_by_the_hold_out_whatever_else_they_are_scored_on(
    cohort: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = sorted(CohortTable.read(cohort).rows["label"].dropna().unique())
    backwards, forwards = untrained(classes[::-1]), untrained(classes)
    scored = {}
    for name, classifier in (("one", backwards), ("other", forwards)):
        model_id = mlflow.initialize_logged_model(name=name).model_id
        scored[model_id] = [
            evaluated(classifier, cohort, preset, monkeypatch, split, model_id) for split in ("holdout", "test")
        ]
    ranked = mlflow.search_logged_models(
        order_by=[{"field_name": "metrics.macro_f1", "ascending": False}], output_format="list"
    )
    best_first = sorted(scored, key=lambda model_id: -scored[model_id][0].metrics["macro_f1"])
    assert [model.model_id for model in ranked] == best_first
    assert len({held.metrics["macro_f1"] for held, _ in scored.values()}) == 2  # otherwise any order would do
    for model_id, (held, tested) in scored.items():
        shown = measured(model_id)
        assert shown["macro_f1"].value == held.metrics["macro_f1"]
        assert shown["test/macro_f1"].value == tested.metrics["macro_f1"]
        assert shown["macro_f1"].dataset_name == "slides (holdout)"
        assert shown["test/macro_f1"].dataset_name == "slides (test)"
        assert used_models(held.run_id) == used_models(tested.run_id) == [model_id]


@pytest.mark.parametrize("form", ["training layout", "test layout", "zip"])
def test_an_outside_cohort_needs_no_cohort_table(
    store: Path, small_cohort: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    outside = store / "north"
    part, table = ("test_data", "test_labels.csv") if form == "test layout" else ("train_data", "train_labels.csv")
    shutil.copytree(small_cohort / part, outside / part)
    shutil.copyfile(small_cohort / table, outside / table)
    labels = pd.read_csv(outside / table).iloc[:-1]  # the last slide has no label and is not scored
    labels.to_csv(outside / table, index=False)
    if form == "zip":
        outside = Path(shutil.make_archive(str(outside), "zip", outside))
    classes = sorted(labels["label"].unique())
    shares = {name: 0.7 if name == classes[1] else 0.1 for name in classes}
    classifier = untrained(classes, shares=shares)
    model_id = mlflow.initialize_logged_model(name="made-here").model_id
    result = evaluated(classifier, store / "nothing", preset, monkeypatch, str(outside), model_id)
    predictions = Predictions.read_csv(local(result.artifacts["predictions"])).rows
    assert sorted(predictions["slide_id"]) == sorted(Path(name).stem for name in labels["sample_index"])
    scores = Scores.read(local(result.artifacts["metrics"]))
    assert scores.split == str(outside.resolve())
    majority = null_metrics(predictions["label"].tolist(), [classes[1]], classes)["majority/macro_f1"].value
    assert scores.null["majority/macro_f1"].value == pytest.approx(majority)  # from what the model remembers
    shown = measured(model_id)["outside/north/macro_f1"]
    assert shown.value == result.metrics["macro_f1"]
    assert shown.dataset_name == "slides (north)"
    assert f"On {len(predictions)} north slides" in local(result.artifacts["report"]).read_text()
    again = evaluated(classifier, store / "nothing", preset, monkeypatch, str(outside), model_id)
    assert again.reused


def test_the_gate_measures_latency_on_an_outside_cohort(
    store: Path, small_cohort: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(small_cohort / "train_data", store / "north/train_data")
    labels = pd.read_csv(small_cohort / "train_labels.csv").assign(case="all")  # refused unless it is confirmed
    labels.to_csv(store / "north/train_labels.csv", index=False)
    classes = sorted(labels["label"].unique())
    classifier = untrained(classes, shares=dict.fromkeys(classes, 0.25))
    reading = {"ignore_columns": "case", "mpp": "0.5"}
    result = evaluated(classifier, store / "nothing", preset, monkeypatch, "north", **reading)
    monkeypatch.setattr("doctogres.serving.loading.load_classifier", lambda address: classifier)
    scales = list[float]()

    def read(root: Path, row: Any) -> Any:
        scales.append(row.mpp)
        return read_slide(root, row)

    monkeypatch.setattr("doctogres.cleaning.reading.read_slide", read)
    scored = read_evaluation(result.run_id)
    asked = Candidate(scored, "models:/m-1", RegisteredModel("doctogres"), preset, 1, "auto", data="")
    assert candidate._latency(asked, None)["model"] > 0
    assert set(scales) == {0.5}


def test_patients_are_scored_as_they_are_served(
    store: Path, small_cohort: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = Path(shutil.copytree(small_cohort, store / "north"))
    labels = pd.read_csv(outside / "train_labels.csv").sort_values("label", ignore_index=True)
    labels["group"] = [f"p{number // 3}" for number in range(len(labels))]
    labels["scanner"] = ["old"] * (len(labels) - 4) + ["new"] * 4
    labels.to_csv(outside / "train_labels.csv", index=False)
    classes = sorted(labels["label"].unique())
    plain = untrained(classes, shares=dict.fromkeys(classes, 0.2))
    rule = GroupRule(method="log_probabilities", calibration=CALIBRATION)
    classifier = replace(plain, card=plain.card.model_copy(update={"group": rule}))
    result = evaluated(classifier, outside, preset, monkeypatch, str(outside))
    answered = Predictions.read_csv(local(result.artifacts["predictions"]))
    table = pd.read_csv(local(result.artifacts["groups"]), keep_default_na=False).set_index("group")

    of_patient = labels.groupby("group")["label"]
    mixed = sorted(of_patient.nunique()[of_patient.nunique() > 1].index)
    assert mixed  # or nothing would be left out
    assert table.loc[mixed, "label"].tolist() == [""] * len(mixed)
    scored = table.drop(index=mixed)
    shares = scored[[f"p_{name}" for name in classes]].to_numpy()
    expected = slide_metrics(scored["label"].tolist(), shares, classes, resamples=100, seed=1)
    scores = Scores.read(local(result.artifacts["metrics"]))
    assert scores.metrics["group/macro_f1"] == expected["macro_f1"]
    assert result.metrics["group/macro_f1"] == expected["macro_f1"].value
    assert scores.groups == (
        f"{len(scored)} of {len(table)} groups are scored, {(of_patient.size() > 1).sum()} of all have several slides; "
        f"{len(mixed)} whose slides have different labels are not: {', '.join(mixed)}."
    )
    assert scores.groups in local(result.artifacts["report"]).read_text()

    old, new = scores.subgroups
    assert (old.name, new.name) == ("scanner old", "scanner new")
    assert result.metrics["subgroup/scanner/old"] == old.metrics["macro_f1"].value
    assert "subgroup/scanner/new" not in result.metrics
    page = local(result.artifacts["report"]).read_text()
    assert "The smallest subgroup is scanner new: 4 slides of 2 groups." in page
    assert "too few groups (2, at least 10)" in page
    request = pd.DataFrame([
        {"slide_id": row.slide_id, "group": row.group}
        | {kind: (outside / getattr(row, kind)).read_bytes() for kind in ("image", "mask")}
        for row in outside_cohort(str(outside)).slides.itertuples()
    ])  # fmt: skip
    for row in model_of(classifier, None).predict(None, request):
        evaluated_as = table.loc[row["group"]]
        assert (row["group_label"], row["group_slides"]) == (evaluated_as["predicted"], evaluated_as["slides"])
        assert row["group_abstained"] == evaluated_as["abstained"]
        for name, share in row["group_probabilities"].items():
            assert share == pytest.approx(evaluated_as[f"p_{name}"], abs=1e-6)
    assert answered.rows["group"].nunique() == len(table)


def test_labels_that_came_later_meet_the_answer_log_by_digest(
    cohort: Path,
    small_cohort: Path,
    preset: Preset,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = slides_of(CohortTable.read(cohort).usable, small_cohort, "holdout")
    classes = sorted(CohortTable.read(cohort).rows["label"].dropna().unique())
    classifier = untrained(classes)
    log = AnswerLog(small_cohort.parent / f"log-{digest(str(cohort))}")
    asked = [
        {kind: (small_cohort / getattr(row, kind)).read_bytes() for kind in ("image", "mask")}
        for row in rows.itertuples()
    ]
    model_of(classifier, log).predict(None, pd.DataFrame(asked[1:]))
    result = evaluated(classifier, cohort, preset, monkeypatch, answers=str(log.folder))
    scores = Scores.read(local(result.artifacts["metrics"]))
    assert scores.answers is not None
    assert scores.answers.found == {"answered": len(rows) - 1, "not in the answer log": 1}
    assert scores.answers.as_given == scores.answers.rescored  # the same model
    assert scores.answers.changed == 0
    assert scores.answers.as_given is not None
    assert result.metrics["answers/macro_f1"] == scores.answers.as_given.value
    table = pd.read_csv(local(result.artifacts["answers"]), dtype={"slide_id": str})
    answered = table[table["found"] == "answered"]
    assert (answered["given"] == answered["now"]).all()
    assert scores.answers.sentence in local(result.artifacts["report"]).read_text()
    assert scores.answers.sentence in capsys.readouterr().out
    assert (
        evaluated(classifier, cohort, preset, monkeypatch, answers=str(log.folder)).run_id != result.run_id
    )  # another model
    with pytest.raises(UpstreamError, match="nothing-here"):
        evaluated(classifier, cohort, preset, monkeypatch, answers="nothing-here")


def test_several_models_are_compared_in_pairs_on_the_same_slides(
    cohort: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = sorted(CohortTable.read(cohort).rows["label"].dropna().unique())
    known = {
        f"models:/{mlflow.initialize_logged_model(name=name).model_id}": untrained(order)
        for name, order in (("one", classes), ("two", classes[::-1]), ("three", [*classes[1:], classes[0]]))
    }
    seen = {address: classifier.card.seen for address, classifier in known.items()}
    monkeypatch.setattr("doctogres.stages.evaluate.load_classifier", known.__getitem__)
    for stage in ("evaluate", "compare"):
        monkeypatch.setattr(f"doctogres.stages.{stage}.training_record", seen.__getitem__)
    given: dict[str, Any] = {"cohort": str(cohort), "split": "holdout", "preset": preset, "seed": 1}
    first, second, third = known
    alone = evaluate(model=first, **given)
    result = evaluate(model=", ".join(known), **given)

    found = ComparedModels.model_validate_json(local(result.artifacts["metrics"]).read_bytes())
    assert [one.model for one in found.models] == list(known)
    assert found.models[0].evaluation == alone.run_id  # reused
    assert [(pair.model, pair.against) for pair in found.pairs] == [(first, second), (first, third), (second, third)]
    assert any(pair.difference.low < pair.difference.high for pair in found.pairs)
    said = capsys.readouterr().out
    for pair in found.pairs:
        scores = {one.name: one.metrics["macro_f1"].value for one in found.models}
        assert pair.difference.value == pytest.approx(scores[pair.model] - scores[pair.against])
        assert pair.difference.low <= pair.difference.value <= pair.difference.high
        assert str(pair.difference) in local(result.artifacts["report"]).read_text()
        assert f"{pair.model} minus {pair.against}: {pair.difference}" in said
    assert sorted(f"models:/{one}" for one in used_models(result.run_id)) == sorted(known)
    for one in found.models:
        assert measured(one.model.removeprefix("models:/"))["macro_f1"].value == one.metrics["macro_f1"].value
        part = mlflow.get_run(one.evaluation)
        assert used_models(one.evaluation) == [one.model.removeprefix("models:/")]
        assert (part.data.tags.get(PART_TAG) == result.run_id) == (one is not found.models[0])
    assert find_artifact("latest", stage="evaluate", name="metrics").run_id == alone.run_id  # for `register`
    assert evaluate(model=",".join(known), **given).reused

    own = TrainingRecord(data_digest=CohortTable.read(cohort).data_digest, groups=(digest("img_0000"),))
    with monkeypatch.context() as patcher:  # a training slide has the name of a test slide, which is no patient
        patcher.setitem(seen, second, own)
        evaluate(model=f"{first},{second}", **given | {"split": "test"})

    held = CohortTable.read(cohort).usable
    seen[third] = TrainingRecord(pictures=(held.loc[held["fold"] == "holdout", "image_md5"].iloc[0],))
    before = len(mlflow.search_runs())
    with pytest.raises(LeakageError, match=f"model={third}: the model was trained on 1 of"):
        evaluate(model=f"{second},{third}", **given)
    with pytest.raises(ParameterError, match="both are models:/.*give different models"):
        evaluate(model=f"{first},{second},{first}", **given)
    assert len(mlflow.search_runs()) == before


def test_an_outside_cohort_that_cannot_be_scored_is_refused(
    store: Path, small_cohort: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = store / "north"
    (outside / "test_data").mkdir(parents=True)
    with pytest.raises(CohortError, match=r"split=.*north has no labels.*train_labels.csv"):
        evaluated(untrained(["a", "b"]), store, preset, monkeypatch, "north")
    shutil.copytree(small_cohort / "train_data", outside / "train_data")
    shutil.copyfile(small_cohort / "train_labels.csv", outside / "train_labels.csv")
    with pytest.raises(ParameterError, match=r"not among the classes \['a', 'b'\]"):
        evaluated(untrained(["a", "b"]), store, preset, monkeypatch, "north")
    seen = outside_cohort(str(outside))
    (mask,) = outside.glob("train_data/mask_0003.*")
    mask.unlink()
    with pytest.raises(CohortError, match=r"1 missing_mask: img_0003 .*fix or leave out"):
        evaluated(untrained(["a", "b"]), store, preset, monkeypatch, str(outside))
    groups = (digest(seen.slides["group"].iloc[0]),)
    with pytest.raises(LeakageError, match=r"group"):  # the cohort that the model was trained on, as a folder
        check_unseen(
            seen.slides,
            TrainingRecord(data_digest=seen.data_digest, groups=groups),
            data_digest=seen.data_digest,
            split="north",
        )


def test_the_digest_of_an_outside_cohort_is_that_of_clean(cohort: Path, small_cohort: Path) -> None:
    assert outside_cohort(str(small_cohort)).data_digest == CohortTable.read(cohort).data_digest


def test_a_split_that_is_nothing_names_what_it_may_be(
    cohort: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CohortError, match="split=nowhere: no usable slide has it, and there is no such folder or zip"):
        evaluated(untrained(["a", "b"]), cohort, preset, monkeypatch, "nowhere")


def test_it_does_not_score_what_the_model_has_seen(
    cohort: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = CohortTable.read(cohort).rows
    classes = sorted(table["label"].dropna().unique())
    held = table[table["fold"] == "holdout"].iloc[0]
    seen = TrainingRecord(pictures=(held["image_md5"],))
    with pytest.raises(LeakageError, match=f"1 of .*{held['slide_id']}"):
        evaluated(untrained(classes, seen), cohort, preset, monkeypatch)
    assert mlflow.search_runs(filter_string="tags.`doctogres.stage` = 'evaluate'").empty  # not even a failed one


SLIDES = pd.DataFrame({
    "slide_id": ["img_1", "img_2", "img_3", "img_4"], "image_md5": ["aa", "bb", "cc", "dd"],
    "group": ["p1", "p2", "p2", "img_4"],
})  # fmt: skip


@pytest.mark.parametrize(
    ("seen", "split", "words"),
    [
        (TrainingRecord(pictures=("bb",)), "test", r"1 of these 4 .*img_2 \(same image file\)"),
        (
            TrainingRecord(data_digest="d", groups=(digest("p2"),)),
            "holdout",
            r"2 of these 4 .*img_2 \(group p2\), img_3",
        ),
        (
            TrainingRecord(data_digest="d", groups=(digest("p1"),), pictures=("aa",)),
            "fold0",
            r"img_1 \(same image file\)",
        ),
        (TrainingRecord(data_digest="d", groups=(digest("p2"),)), "test", r"2 of these 4 .*img_2 \(group p2\)"),
        (TrainingRecord(data_digest="d", groups=(digest("img_4"),)), "test", None),  # another slide's name
        (TrainingRecord(data_digest="another", groups=(digest("p2"),)), "holdout", None),
        (TrainingRecord(data_digest="d", groups=(digest("p3"),), pictures=("ee",)), "holdout", None),
        (TrainingRecord(), "holdout", None),
    ],
)
@pytest.mark.parametrize("model", ["", "models:/m/1"])
def test_what_counts_as_seen(seen: TrainingRecord, split: str, words: str | None, model: str) -> None:
    if words is None:
        check_unseen(SLIDES, seen, data_digest="d", split=split, model=model)
    else:
        with pytest.raises(LeakageError, match=words):
            check_unseen(SLIDES, seen, data_digest="d", split=split, model=model)


@pytest.fixture
def small_test(tmp_path: Path) -> Path:
    """A folder of three labelled test slides."""
    (tmp_path / "test_data").mkdir()
    for number in range(3):
        for kind in ("img", "mask"):
            (tmp_path / f"test_data/{kind}_{number}.png").write_bytes(f"{kind} {number}".encode())
    (tmp_path / "test_labels.csv").write_text(
        "sample_index,label,group\nimg_0.png,a,p\nimg_1.png,b,img_1\nimg_2.png, c ,q\n"
    )
    return tmp_path


def test_the_test_slides_keep_their_labels_and_patients(small_test: Path) -> None:
    slides = slides_of(pd.DataFrame(), small_test, "test")
    assert slides["label"].tolist() == ["a", "b", "c"]
    assert slides["group"].tolist() == ["p", "img_1", "q"]
    assert slides["mask_md5"].nunique() == 3


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: (root / "test_data/img_1.png").unlink(), r"1 missing_image: img_1 \(.*\); fix"),
        (lambda root: (root / "test_data/mask_1.png").unlink(), r"1 missing_mask: img_1 \(.*\); fix"),
        (lambda root: [one.unlink() for one in root.glob("test_data/*_1.png")], r"have no files: img_1; correct"),
        (lambda root: (root / "test_labels.csv").write_text("sample_index,label\nimg_0.png,a\nimg_0,b\n"), "several lines: img_0"),
        (lambda root: (root / "test_labels.csv").unlink(), "does not exist"),
    ],
)  # fmt: skip
def test_a_labelled_test_slide_is_never_lost_in_silence(small_test: Path, spoil: Any, words: str) -> None:
    spoil(small_test)
    with pytest.raises(CohortError, match=words):
        slides_of(pd.DataFrame(), small_test, "test")


def test_a_test_slide_with_a_blank_label_is_not_scored(small_test: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small_test / "test_labels.csv").write_text("sample_index,label\nimg_0.png,a\nimg_1.png,NA\nimg_2.png,b\n")
    assert slides_of(pd.DataFrame(), small_test, "test")["slide_id"].tolist() == ["img_0", "img_2"]
    assert "1 test slides have no label" in capsys.readouterr().out


def test_a_column_of_patients_in_the_test_labels_is_refused_or_confirmed(small_test: Path) -> None:
    (small_test / "test_labels.csv").write_text("sample_index,label,case\nimg_0,a,1\nimg_1,b,1\nimg_2,b,2\n")
    with pytest.raises(CohortError, match=r"test_labels.csv.*'case'.*rename.*group"):
        slides_of(pd.DataFrame(), small_test, "test")
    assert len(slides_of(pd.DataFrame(), small_test, "test", ignore_columns=["case"])) == 3
