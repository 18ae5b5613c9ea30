"""Planted evaluations at the gate: what becomes a version, the champion, the former one, and what the card tells."""

import hashlib
import json
import shlex
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.cli import commands as mlflow_artifacts
from mlflow.tracking import MlflowClient

from doctogres.errors import CohortError, ParameterError, UpstreamError
from doctogres.evaluation.metrics import slide_metrics
from doctogres.evaluation.null_models import null_metrics
from doctogres.evaluation.predictions import Predictions
from doctogres.evaluation.scores import Scores
from doctogres.presets import load_preset
from doctogres.registry.versions import RegisteredModel
from doctogres.serving.signing import PRIVATE_KEY, PUBLIC_KEY, SIGNATURE, check_signature
from doctogres.slides.splits import LeakageError
from doctogres.slides.table import COLUMNS, CohortTable
from doctogres.stages.candidate import candidate_of
from doctogres.stages.register import decision, register
from doctogres.tracking.datasets import log_table
from doctogres.tracking.places import fetch
from doctogres.tracking.runs import SLIDES_TAG, StageResult, StageRun, run_stage
from doctogres.tracking.store import experiment_id
from doctogres.tracking.upstream import find_artifact
from tests.serving.test_signing import write_keys

CLASSES = ["benign_1", "HER2(+) | <b>"]
pytestmark = pytest.mark.slow
PRESET = load_preset("demo", {"resamples": 200})
SLIDES = 40
REGISTERED = RegisteredModel("doctogres")
MODEL = """
import mlflow
class Named(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [open(context.artifacts["classifier"] + "/name").read()]
mlflow.models.set_model(Named())
"""


def trained(name: str, **card: Any) -> str:
    """A logged model that answers with its name, by a planted run of `train`."""
    folder = Path(name) / "classifier"
    folder.mkdir(parents=True)
    (folder / "name").write_text(name)
    (folder / "classifier.json").write_text(json.dumps({"answer": {"aggregation": "mean", "tta": False}, **card}))
    Path("named.py").write_text(MODEL)

    def body(run: StageRun) -> None:
        info = mlflow.pyfunc.log_model(
            name="model", python_model="named.py", artifacts={"classifier": str(folder)}, pip_requirements=["mlflow"]
        )
        run.artifacts["model"] = info.model_uri

    settings = {"name": name, "epochs": 3, "learning_rate": 0.001, "weights": "none", "seed": 5}
    return run_stage("train", body, settings=settings, inputs={}).artifacts["model"]


def cohort(root: Path, *, decisions: str = "", inputs: dict[str, str] | None = None) -> str:
    """A planted run of `clean`: half of the kept slides are held out."""

    def body(run: StageRun) -> None:
        rows = [dict.fromkeys(COLUMNS, "") for _ in range(2 * SLIDES + 2)]
        table = pd.DataFrame(rows)
        table["slide_id"] = [f"img_{number:04d}" for number in range(len(table))]
        table["label"] = [CLASSES[number % 2] for number in range(len(table))]
        table["group"] = table["slide_id"]
        table["outcome"] = ["kept"] * (2 * SLIDES) + ["dropped"] * 2
        table["reason"] = [""] * (2 * SLIDES) + ["cartoon: only 1 % is stained"] * 2
        table["fold"] = ["holdout"] * SLIDES + ["fold0"] * (SLIDES + 2)
        if decisions:
            run.attach("decisions_given.csv").write_text(decisions)
        CohortTable(table, root, "").write(run.publish("cohort"))
        log_table(table, name="slides", source="my slides", context="cleaning", targets="label")

    settings = {"seed": 5, "holdout": 0.5, "max_pixels": 9}
    return run_stage("clean", body, settings=settings, inputs=inputs or {}).artifacts["cohort"]


def evaluated(
    model: str,
    wrong: int,
    *,
    first: int = 0,
    classes: list[str] = CLASSES,
    source: str = "",
    spread: bool = True,
) -> StageResult:
    """A planted run of `evaluate` on 40 slides of two classes: `wrong` of them, from the `first` on, are answered wrongly."""
    labels = [classes[number % 2] for number in range(SLIDES)]
    right = np.array([not first <= number < first + wrong for number in range(SLIDES)])
    sure = np.where(right, 0.8, 0.2)
    probabilities = np.stack([np.where(np.arange(SLIDES) % 2 == side, sure, 1 - sure) for side in (0, 1)], axis=1)
    table = pd.DataFrame({"slide_id": [f"img_{number:04d}" for number in range(SLIDES)], "label": labels})
    table["group"] = table["slide_id"] if spread else "one"
    for column in ("image_md5", "mask_md5"):
        table[column] = [hashlib.md5(f"{column} {name}".encode()).hexdigest() for name in table["slide_id"]]
    table["outcome"] = "kept"
    table["predicted"] = [classes[index] for index in probabilities.argmax(axis=1)]
    table["correct"] = table["predicted"] == table["label"]
    table["confidence"] = probabilities.max(axis=1)
    table["abstained"], table["reason"], table["n_patches"] = False, "", 3
    return planted(model, Predictions(table, tuple(classes), probabilities), source)


def planted(
    model: str, predictions: Predictions, source: str = "", split: str = "holdout", **reading: str
) -> StageResult:
    table, classes = predictions.rows, predictions.classes
    options: dict[str, Any] = {"groups": table["group"].tolist(), "resamples": 200}
    truth = table["label"].tolist()
    metrics = slide_metrics(truth, predictions.probabilities, classes, **options)
    scores = Scores(
        model=model,
        split=split,
        classes=classes,
        slides=len(table),
        threshold=0.0,
        temperature=1.0,
        metrics=metrics,
        ece_raw=metrics["ece"],
        null=null_metrics(truth, truth, classes, **options),
    )

    def body(run: StageRun) -> None:
        predictions.write_csv(run.publish("predictions"))
        scores.write(run.publish("metrics"))
        mlflow.set_tag(SLIDES_TAG, "where the slides lie")
        if source:
            log_table(table, name="slides", source=source, context="evaluation", targets="label")

    digest = hashlib.md5(predictions.table.to_csv().encode()).hexdigest()
    settings = {"seed": 5, "split": split, **reading}
    return run_stage("evaluate", body, settings=settings, inputs={"model": model, "table": digest})


def enter(evaluation: StageResult, **options: Any) -> dict[str, Any]:
    """The decision about an evaluation."""
    return decision(stage(evaluation, **options))


def stage(evaluation: StageResult | str, *, rerun: bool = False, **options: Any) -> StageResult:
    of = evaluation if isinstance(evaluation, str) else evaluation.run_id
    return register(candidate_of(**{"evaluation": of, "preset": PRESET, "seed": 0, **options}), rerun=rerun)


def versions() -> list[Any]:
    found = MlflowClient().search_model_versions("name = 'doctogres'")
    return sorted(found, key=lambda one: int(one.version))


def tags(version: str) -> dict[str, str]:
    return dict(MlflowClient().get_model_version("doctogres", version).tags)


def registrations() -> list[Any]:
    return list(MlflowClient().search_runs([experiment_id()], "tags.`doctogres.stage` = 'register'"))


def card_of(result: StageResult) -> str:
    return find_artifact(result.run_id, stage="register", name="card").path.read_text()


def answers_of(evaluation: StageResult) -> Predictions:
    uri = evaluation.artifacts["predictions"]
    return Predictions.read_csv(Path(mlflow.artifacts.download_artifacts(artifact_uri=uri)))


def only(answers: Predictions, rows: list[int]) -> Predictions:
    return replace(
        answers, rows=answers.rows.iloc[rows].reset_index(drop=True), probabilities=answers.probabilities[rows]
    )


def forget(evaluation: StageResult, column: str) -> None:
    """Takes a column out of the stored predictions, as if another version had written them."""
    stored = Path(MlflowClient().get_run(evaluation.run_id).info.artifact_uri) / "predictions.csv"
    pd.read_csv(stored, dtype=str, keep_default_na=False).drop(columns=column).to_csv(stored, index=False)


def served() -> str:
    return str(mlflow.pyfunc.load_model("models:/doctogres@champion").predict(pd.DataFrame({"a": [1]}))[0])


class Scoring:
    """Stands for the `evaluate` stage, whose module loads torch: gives an evaluation, or raises."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, outcome: Any):
        self.calls: list[dict[str, Any]] = []
        self.outcome = outcome
        monkeypatch.setitem(sys.modules, "doctogres.stages.evaluate", SimpleNamespace(evaluate=self))

    def __call__(self, **given: Any) -> StageResult:
        self.calls.append(given)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        result: StageResult = self.outcome(given["model"])
        return result


def test_a_model_no_better_than_guessing_becomes_no_version(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = stage(evaluated(trained("poor"), wrong=20))
    decided = decision(result)
    assert (decided["version"], decided["alias"]) == (None, "")
    assert "model" not in json.loads(result.to_json())["artifacts"]
    run = MlflowClient().get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "refused register"
    for text in (run.data.tags["mlflow.note.content"], capsys.readouterr().out, decided["reason"]):
        assert "null models" in text
    assert "not registered" in card_of(result)
    assert versions() == []
    with pytest.raises(MlflowException):
        MlflowClient().get_registered_model("doctogres")


def test_a_worse_model_stays_a_challenger_and_an_equal_one_replaces_the_champion(store: Path) -> None:
    assert enter(evaluated(trained("first"), wrong=6))["alias"] == "champion"
    worse = enter(evaluated(trained("worse"), wrong=8))
    assert (worse["version"], worse["alias"]) == ("2", "challenger")
    assert "scores lower" in tags("2")["gate_reason"]
    assert served() == "first"
    same = enter(evaluated(trained("same"), wrong=6))
    assert (same["version"], same["alias"]) == ("3", "champion")
    assert "+0.000 [+0.000, +0.000]" in same["reason"]
    assert served() == "same"
    assert REGISTERED.aliases() == {"champion": "3", "former-champion": "1", "challenger": "2"}


def test_a_better_score_with_a_possible_loss_is_not_enough(store: Path) -> None:
    enter(evaluated(trained("first"), wrong=6))
    other = evaluated(trained("other"), wrong=5, first=20)  # one slide better, eleven slides otherwise
    strict = enter(other, preset=load_preset("demo", {"resamples": 200, "loss_margin": 0.01}))
    assert strict["alias"] == "challenger"
    assert "a loss of more than 0.01 cannot be excluded" in strict["reason"]
    assert enter(other, preset=load_preset("demo", {"resamples": 200, "loss_margin": 0.9}))["alias"] == "champion"
    assert [one.version for one in versions()] == [1, 2]
    assert REGISTERED.aliases() == {"champion": "2", "former-champion": "1"}


def test_the_champions_recorded_score_decides_nothing(store: Path) -> None:
    enter(evaluated(trained("first"), wrong=6))
    MlflowClient().set_model_version_tag("doctogres", "1", "macro_f1", "0.01")
    assert enter(evaluated(trained("worse"), wrong=8))["alias"] == "challenger"


def test_a_repeated_registration_is_reused_and_makes_no_second_version(store: Path) -> None:
    first, second = evaluated(trained("first"), wrong=8), evaluated(trained("second"), wrong=6)
    before = [stage(first), stage(second)]
    again = [stage(second), stage(second)]
    assert [result.reused for result in (*before, *again)] == [False, False, True, True]
    assert again[0].run_id == before[1].run_id
    anew = stage(first)  # the champion is another one now
    assert not anew.reused
    assert decision(anew)["alias"] == "challenger"
    assert stage(first).reused
    assert not stage(second, rerun=True).reused
    assert len(versions()) == 2
    assert REGISTERED.aliases() == {"champion": "2", "former-champion": "1", "challenger": "1"}


def test_another_evaluation_of_the_champion_moves_its_tags_only(store: Path) -> None:
    model = trained("first")
    stage(evaluated(model, wrong=6))
    newer = evaluated(model, wrong=5)
    decided = enter(newer)
    assert (decided["version"], decided["alias"]) == ("1", "champion")
    assert decided["reason"].startswith("it is already the champion: ")
    assert tags("1")["evaluation_run"] == newer.run_id
    assert enter(evaluated("models:/doctogres/1", wrong=4))["version"] == "1"  # the same model by another address
    assert len(versions()) == 1


def test_force_overrules_the_gate_and_leaves_its_mark(store: Path) -> None:
    stage(evaluated(trained("good"), wrong=2))
    poor = evaluated(trained("poor"), wrong=20)
    assert enter(poor)["version"] is None
    result = stage(poor, promote="force")
    decided = decision(result)
    assert (decided["alias"], decided["forced"]) == ("champion", True)
    assert tags("2")["promoted_by"] == "force"
    assert "gate decision: not registered" in tags("2")["gate_reason"]
    assert tags("1")["promoted_by"] == "gate"
    assert card_of(result).startswith("Promoted by force. ")
    run = MlflowClient().get_run(result.run_id)
    assert run.info.run_name == "v2 champion register by force"
    assert "promote=force" in run.data.tags["mlflow.note.content"]
    assert served() == "poor"
    stage(evaluated(trained("good again"), wrong=2))
    assert tags("3")["promoted_by"] == "gate"
    assert enter(poor, seed=1)["version"] is None  # decided anew, by the gate alone
    assert REGISTERED.aliases()["champion"] == "3"


def test_a_champion_by_force_is_known_as_the_champion(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poor = evaluated(trained("poor"), wrong=20)
    assert enter(poor)["version"] is None
    stage(poor, promote="force")
    capsys.readouterr()
    for options in ({}, {"rerun": True}):
        decided = enter(poor, **options)
        assert (decided["version"], decided["alias"], decided["forced"]) == ("1", "champion", True)
        assert decided["reason"].startswith("it is already the champion: promote=force")
    assert "no version" not in capsys.readouterr().out
    assert stage(poor).reused
    stage(evaluated(trained("good"), wrong=2))
    capsys.readouterr()
    enter(poor)
    assert "not registered" in capsys.readouterr().out


def test_a_challengers_mark_of_force_goes_when_the_gate_decides_anew(store: Path) -> None:
    weak = evaluated(trained("weak"), wrong=8)
    stage(evaluated(trained("good"), wrong=2))
    stage(weak, promote="force")
    stage(evaluated(trained("best"), wrong=1))
    assert enter(weak)["alias"] == "challenger"
    assert "promoted_by" not in tags("2")


def test_a_rollback_is_one_alias_and_the_next_model_meets_the_old_champion(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage(evaluated(trained("old"), wrong=8))
    newer = evaluated(trained("new"), wrong=4)
    stage(newer)
    assert served() == "new"
    client = MlflowClient()
    client.set_registered_model_alias("doctogres", "champion", REGISTERED.aliases()["former-champion"])
    assert served() == "old"
    capsys.readouterr()
    assert stage(newer).reused  # a repeat does not undo what a person did
    assert "version 2 now has former-champion" in capsys.readouterr().out
    assert served() == "old"
    third = enter(evaluated(trained("third"), wrong=6))  # worse than `new`, better than `old`
    assert third["alias"] == "champion"
    assert "(version 1)" in third["reason"]
    assert REGISTERED.aliases() == {"champion": "3", "former-champion": "1"}


def test_force_undoes_a_rollback_when_it_is_asked_for_again(store: Path) -> None:
    stage(evaluated(trained("old"), wrong=2))
    poor = evaluated(trained("poor"), wrong=20)
    stage(poor, promote="force")
    assert stage(poor, promote="force").reused
    MlflowClient().set_registered_model_alias("doctogres", "champion", "1")
    assert not stage(poor, promote="force").reused
    assert REGISTERED.aliases() == {"champion": "2", "former-champion": "1"}


def test_a_version_that_was_deleted_is_made_again(store: Path) -> None:
    scored = evaluated(trained("first"), wrong=6)
    stage(scored)
    MlflowClient().delete_registered_model("doctogres")
    assert not stage(scored).reused
    assert served() == "first"


@pytest.mark.parametrize("column", ["image_md5", "mask_md5", "outcome"])
def test_on_another_hold_out_the_champion_is_scored_anew(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], column: str
) -> None:
    stage(evaluated(trained("first"), wrong=1))
    answers = answers_of(evaluated(trained("second"), wrong=6))
    other = answers.rows[column].str[::-1]  # the same names and labels, other pictures, masks or repairs
    answers = replace(answers, rows=answers.rows.assign(**{column: other}))
    new = planted(trained("third"), answers, source="runs:/of_clean/cohort.parquet")
    scoring = Scoring(monkeypatch, lambda model: evaluated(model, wrong=8))
    decided = enter(new, data="moved")
    (call,) = scoring.calls
    assert call["model"] == "models:/doctogres/1"
    assert (call["cohort"], call["split"], call["data"]) == ("runs:/of_clean/cohort.parquet", "holdout", "moved")
    assert decided["alias"] == "champion"
    assert "champion re-evaluated, because it was evaluated on other slides" in decided["reason"]
    assert "evaluating the champion (version 1) on these slides" in capsys.readouterr().out
    newest = find_artifact("latest", stage="evaluate", name="metrics")
    assert newest.run_id == new.run_id  # `latest` is not the scoring that the gate made for itself


@pytest.mark.parametrize("parameter", ["mpp", "annotations"])
def test_slides_that_were_read_otherwise_are_read_for_the_champion_as_for_the_new_model(
    store: Path, monkeypatch: pytest.MonkeyPatch, parameter: str
) -> None:
    stage(evaluated(trained("first"), wrong=1))  # by a version that did not log these parameters
    answers = answers_of(evaluated(trained("second"), wrong=6))
    reading = {"ignore_columns": "case", "annotations": "", "mpp": ""}
    same = planted(trained("third"), answers, source="runs:/of_clean/cohort.parquet", **reading)
    scoring = Scoring(monkeypatch, lambda model: evaluated(model, wrong=8))
    assert enter(same)["alias"] == "challenger"
    assert scoring.calls == []
    other = reading | {parameter: "0.5"}
    new = planted(trained("fourth"), answers, source="runs:/of_clean/cohort.parquet", **other)
    decided = enter(new)
    (call,) = scoring.calls
    assert {name: call[name] for name in other} == other
    assert decided["alias"] == "champion"
    assert "because it was evaluated with another mpp or other annotations" in decided["reason"]


def test_answers_at_another_scale_are_not_compared_where_the_champion_knows_some_slides(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = answers_of(evaluated(trained("source"), wrong=16))
    stage(planted(trained("first"), only(answers, list(range(10, 40)))), promote="force")
    Scoring(monkeypatch, LeakageError("1 group was trained on: img_0000"))
    better = answers_of(evaluated(trained("better"), wrong=6))
    decided = enter(planted(trained("second"), better, source="runs:/of_clean/cohort.parquet", mpp="0.5"))
    assert decided["alias"] == "challenger"
    assert "and its predictions are of another mpp or other annotations; promote=force" in decided["reason"]


@pytest.mark.parametrize("unrecorded", ["image_md5", "mask_md5", ""])
def test_without_comparable_predictions_the_champion_is_scored_where_the_slides_lay(
    store: Path, monkeypatch: pytest.MonkeyPatch, unrecorded: str
) -> None:
    old = evaluated(trained("first"), wrong=6)
    stage(old)
    if unrecorded:
        forget(old, unrecorded)
    else:
        shutil.rmtree(MlflowClient().get_run(old.run_id).info.artifact_uri)
    scoring = Scoring(monkeypatch, lambda model: evaluated(model, wrong=2))
    decided = enter(evaluated(trained("second"), wrong=6, first=4, source="runs:/of_clean/cohort.parquet"))
    assert scoring.calls[0]["data"] == "where the slides lie"
    assert decided["alias"] == "challenger"
    assert "scores lower" in decided["reason"]


def test_a_champion_that_comes_while_another_is_compared_is_met_too(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = evaluated(trained("first"), wrong=8)
    stage(old)
    forget(old, "mask_md5")
    best = evaluated(trained("best"), wrong=1, source="runs:/of_clean/cohort.parquet")

    def meanwhile(model: str) -> StageResult:
        scoring.outcome = lambda model: evaluated(model, wrong=8)
        assert enter(best)["alias"] == "champion"
        return evaluated(model, wrong=8)

    scoring = Scoring(monkeypatch, meanwhile)
    second = evaluated(trained("second"), wrong=6, source="runs:/of_clean/cohort.parquet")
    decided = enter(second)
    assert decided["alias"] == "challenger"
    assert "scores lower" in decided["reason"]
    assert "(version 2)" in tags("3")["gate_reason"]
    assert sorted(run.info.status for run in registrations()) == ["FAILED", "FINISHED", "FINISHED", "FINISHED"]
    assert tags("3")["compared_with"].startswith("version 2 ")
    assert "promoted_by" not in tags("3")
    assert REGISTERED.aliases() == {"champion": "2", "former-champion": "1", "challenger": "3"}
    assert stage(second).reused
    MlflowClient().set_registered_model_alias("doctogres", "champion", "1")
    assert enter(second)["alias"] == "champion"  # the finished run was about version 2


def test_slides_that_are_gone_make_a_challenger_until_they_are_found(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = evaluated(trained("first"), wrong=8)
    stage(old)
    forget(old, "image_md5")
    new = evaluated(trained("second"), wrong=6, source="runs:/of_clean/cohort.parquet")
    Scoring(monkeypatch, CohortError("/gone: the slides are no longer there; give data=FOLDER_OR_ZIP"))
    decided = enter(new)
    assert decided["alias"] == "challenger"
    assert "give data=FOLDER_OR_ZIP" in decided["reason"]
    Scoring(monkeypatch, lambda model: evaluated(model, wrong=8))
    assert enter(new, data="found")["alias"] == "champion"


@pytest.mark.parametrize("promote", ["auto", "force"])
def test_a_champion_whose_answers_cannot_be_used_blocks_nothing(store: Path, promote: str) -> None:
    answers = answers_of(evaluated(trained("source"), wrong=6))
    old = planted(trained("first"), answers)
    stage(old)
    stored = Path(MlflowClient().get_run(old.run_id).info.artifact_uri) / "predictions.csv"
    replace(answers, probabilities=0 * answers.probabilities).write_csv(stored)
    decided = enter(evaluated(trained("second"), wrong=4), promote=promote)
    assert decided["alias"] == ("champion" if promote == "force" else "challenger")
    assert "not comparable with the champion (version 1): the comparison failed: " in decided["reason"]


def test_a_champion_whose_scores_are_cut_off_is_scored_anew(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = evaluated(trained("first"), wrong=8)
    stage(old)
    stored = Path(MlflowClient().get_run(old.run_id).info.artifact_uri) / "metrics.json"
    stored.write_text(stored.read_text()[:100])
    scoring = Scoring(monkeypatch, lambda model: evaluated(model, wrong=8))
    assert enter(evaluated(trained("second"), wrong=6, source="runs:/of_clean/cohort.parquet"))["alias"] == "champion"
    assert len(scoring.calls) == 1


def test_models_of_other_classes_are_never_compared(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage(evaluated(trained("first"), wrong=8))
    scoring = Scoring(monkeypatch, AssertionError("must not be called"))
    decided = enter(evaluated(trained("second"), wrong=6, classes=["benign_1", "other"]))
    assert decided["alias"] == "challenger"
    assert "differ from this model's" in decided["reason"]
    assert scoring.calls == []


@pytest.mark.parametrize(("shared", "alias"), [(range(10, 40), "champion"), (range(10, 40, 2), "challenger")])
def test_a_champion_that_knows_some_of_the_slides_is_compared_on_the_others(
    store: Path, monkeypatch: pytest.MonkeyPatch, shared: range, alias: str
) -> None:
    answers = answers_of(evaluated(trained("source"), wrong=16))
    stage(planted(trained("first"), only(answers, list(shared))), promote="force")
    Scoring(monkeypatch, LeakageError("1 group was trained on: img_0000"))
    decided = enter(evaluated(trained("second"), wrong=6, source="runs:/of_clean/cohort.parquet"))
    assert decided["alias"] == alias
    assert "the champion was trained on some of these slides" in decided["reason"]
    if alias == "champion":
        assert "on the same 30 hold-out slides" in decided["reason"]
    else:
        assert "the 15 of 40 that neither model was trained on include no HER2(+)" in decided["reason"]
        assert "promote=force" in decided["reason"]


def test_a_champion_without_an_evaluation_is_scored_and_no_stray_file_is_taken_for_it(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stray = evaluated(trained("first"), wrong=20)
    stage(evaluated(trained("second"), wrong=4))
    MlflowClient().delete_model_version_tag("doctogres", "1", "evaluation_run")
    for name in ("metrics", "predictions"):
        shutil.copy(mlflow.artifacts.download_artifacts(artifact_uri=stray.artifacts[name]), ".")
    scoring = Scoring(monkeypatch, lambda model: evaluated(model, wrong=4))
    decided = enter(evaluated(trained("third"), wrong=6, source="runs:/of_clean/cohort.parquet"))
    assert len(scoring.calls) == 1
    assert decided["alias"] == "challenger"


def test_a_registry_that_does_not_answer_is_not_an_empty_one(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(self: MlflowClient, name: str) -> None:
        raise MlflowException("API request failed")

    monkeypatch.setattr(MlflowClient, "get_registered_model", unreachable)
    with pytest.raises(MlflowException, match="failed"):
        REGISTERED.champion()


def test_the_hold_out_decides_unless_a_parameter_says_otherwise(store: Path) -> None:
    held = evaluated(trained("first"), wrong=6)
    tested = planted(trained("second"), answers_of(held), split="test")
    latest = partial(stage, "latest")
    with pytest.raises(ParameterError, match=f"{tested.run_id}: its split is test, but holdout decides"):
        stage(tested)
    assert versions() == []
    assert "on the hold-out slides, macro-F1" in decision(latest())["reason"]
    assert tags("1")["split"] == "holdout"
    assert "on the same 40 test slides" in decision(latest(split="test"))["reason"]
    with pytest.raises(UpstreamError, match="fold0"):
        latest(split="fold0")


def test_models_of_several_names_do_not_meet(store: Path) -> None:
    stage(evaluated(trained("first"), wrong=2))
    decided = enter(evaluated(trained("second"), wrong=8), model_name="breast")
    assert (decided["name"], decided["version"], decided["alias"]) == ("breast", "1", "champion")
    assert RegisteredModel("breast").aliases() == {"champion": "1"}
    assert REGISTERED.aliases() == {"champion": "1"}
    with pytest.raises(ParameterError, match="model_name=a/b"):
        stage(evaluated(trained("third"), wrong=2), model_name="a/b")


def test_what_is_no_evaluation_is_refused(store: Path) -> None:
    Path("metrics.json").write_text("{}")
    Path("predictions.csv").write_text("slide_id,label\n")
    with pytest.raises(UpstreamError, match="not the scores of an evaluation"):
        stage("metrics.json")


def test_the_card_tells_what_a_person_should_know(store: Path) -> None:
    calibration = {"temperature": 1.5, "threshold": None, "target_precision": 0.9, "slides": 1234, "coverage": 0.5}
    calibration |= {"precision": 0.92, "ece_before": 0.2, "ece_after": 0.1, "log_loss_before": 1.0}
    model = trained("first", calibration=calibration | {"log_loss_after": 0.5})
    result = stage(evaluated(model, wrong=6, source=cohort(store)))
    card = card_of(result)
    version = MlflowClient().get_model_version("doctogres", "1")
    assert version.description == card
    assert "not a medical device" in MlflowClient().get_registered_model("doctogres").description
    lines = card.splitlines()
    assert lines[0].startswith("Macro-F1 0.8")
    assert "always predicting the most frequent class 0.333" in lines[0]
    for expected in (
        "not a medical device",
        "Gate: champion",
        "40 slides from 40 groups",
        "Every class has at least 10",
        "82 slides found: kept 80, dropped 2.",
        "dropped: cartoon 2.",
        "40 slides for training, 40 held out",
        "Temperature 1.50 and threshold unknown, fitted on 1234 out-of-fold slides",
        "log loss 1.000 before, 0.500 after",
        "`epochs` 3",
        "`aggregation` mean",
    ):
        assert expected in card, expected
    assert r"| HER2(+) \| \<b\> | 20 | 20 | 0.8" in card
    assert r"benign\_1" in card
    assert "<b>" not in card.replace(r"\<b\>", "")
    assert (
        "    mlflow run . -e clean --env-manager local -P 'data=my slides' -P preset=demo -P seed=5 -P holdout=0.5"
        in lines
    )
    assert "    mlflow run . -e train --env-manager local -P params=none -P preset=demo -P seed=5 -P epochs=3" in lines


@pytest.mark.parametrize("lost", [False, True])
def test_the_card_gives_back_the_decisions_that_the_cohort_was_cleaned_with(store: Path, lost: bool) -> None:
    decided = "slide_id,decision\nimg_0000,keep\n"
    source = cohort(store, decisions="" if lost else decided, inputs={"decisions": "their digest"})
    lines = card_of(stage(evaluated(trained("first"), wrong=6, source=source))).splitlines()
    (clean,) = [line for line in lines if "run . -e clean" in line]
    before = lines[lines.index(clean) - 1].strip()
    if lost:
        assert "decisions=" not in clean
        assert before.startswith("# missing: decisions_given.csv of run ")
    else:
        assert "-P decisions=decisions_given.csv" in clean
        assert before.startswith("mlflow artifacts download ")
        answer = CliRunner().invoke(mlflow_artifacts, shlex.split(before)[2:])
        assert answer.exit_code == 0, answer.output
        assert Path("decisions_given.csv").read_text() == decided


def test_a_card_says_what_is_not_known(store: Path) -> None:
    card = card_of(stage(evaluated(trained("first"), wrong=1)))
    assert "Not calibrated" in card
    assert "The cohort table could not be found" in card
    assert "commit unknown" in card


def test_a_small_hold_out_is_a_known_limit(store: Path) -> None:
    answers = answers_of(evaluated(trained("first"), wrong=0))
    few = planted(trained("second"), only(answers, [row for row in range(SLIDES) if row % 2 == 0 or row < 8]))
    card = card_of(stage(few))
    assert r"Classes with fewer than 10 of these slides: HER2(+) \| \<b\> 4;" in card


def test_the_model_is_signed_where_a_key_is_given_also_if_the_decision_is_reused(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_keys(store, "ours")
    first = trained("first")
    scored = evaluated(first, wrong=4)
    signature = fetch(first) / SIGNATURE
    assert not stage(scored).reused
    assert not signature.exists()
    monkeypatch.setenv(PRIVATE_KEY, str(store / "ours.pem"))
    assert stage(scored).reused
    assert signature.is_file()
    second = trained("second")
    stage(evaluated(second, wrong=2))
    assert served() == "second"
    monkeypatch.setenv(PUBLIC_KEY, str(store / "ours.pub"))
    check_signature(fetch(second), second)
