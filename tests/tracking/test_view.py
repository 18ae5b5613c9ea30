"""What the tracking UI shows of an experiment: a description, chosen columns, and links that open the right page."""

import json
import re
from pathlib import Path
from urllib.parse import parse_qs

import mlflow
import pytest
from mlflow.entities import Experiment
from mlflow.tracking import MlflowClient

from doctogres.tracking import view
from doctogres.tracking.store import connect, experiment_id
from doctogres.tracking.view import NOTE_TAG, VIEW_TAG, compare_link, describe, experiment_link, run_link
from entrypoints.ui import command


def experiment() -> Experiment:
    return mlflow.get_experiment(experiment_id())


def test_a_new_experiment_says_what_it_is_and_which_columns_to_show(store: Path) -> None:
    tags = experiment().tags
    assert "histology" in tags[NOTE_TAG].lower()
    assert "not a medical device" in tags[NOTE_TAG]
    columns = json.loads(tags[VIEW_TAG])["selectedColumns"]
    assert columns[:3] == ["metrics.`macro_f1`", "metrics.`ci/macro_f1_low`", "metrics.`ci/macro_f1_high`"]
    assert tags["mlflow.experiment.primaryMetric.name"] == "macro_f1"


def test_a_description_that_a_person_wrote_is_kept(store: Path) -> None:
    MlflowClient().set_experiment_tag(experiment_id(), NOTE_TAG, "Colon, 2026")
    connect()
    assert experiment().tags[NOTE_TAG] == "Colon, 2026"


def test_a_command_that_was_slower_than_another_goes_on(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = Experiment(experiment_id(), "doctogres", "", "active", tags=[])

    class Refusing(MlflowClient):
        def set_experiment_tag(self, experiment_id: str, key: str, value: object) -> None:
            raise mlflow.exceptions.MlflowException("UNIQUE constraint failed")

    monkeypatch.setattr(view, "MlflowClient", Refusing)
    describe(fresh)  # all the tags are there already
    MlflowClient().set_experiment_tag(experiment_id(), VIEW_TAG, "other")
    with pytest.raises(mlflow.exceptions.MlflowException, match="UNIQUE"):
        describe(fresh)


def test_links_open_the_page_for_training_on_the_server_that_keeps_the_runs(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here = f"#/experiments/{experiment_id()}"
    assert experiment_link() == (
        f"http://127.0.0.1:5000/{here}/runs?workflowType=machine_learning&viewStateShareKey=doctogres"
    )
    assert run_link("ab", absolute=False) == f"{here}/runs/ab?workflowType=machine_learning"
    command.main([])
    assert experiment_link() in capsys.readouterr().out
    mlflow.set_tracking_uri("https://me:hunter@lab.example/")
    assert run_link("ab") == f"https://me:***@lab.example/{here}/runs/ab?workflowType=machine_learning"


def test_the_comparisons_address_holds_runs_and_experiment_as_json(store: Path) -> None:
    path, _, query = compare_link(["a1", "b2"]).partition("?")
    assert path == "#/compare-runs"
    given = {name: value for name, (value,) in parse_qs(query).items()}
    assert given.pop("workflowType") == "machine_learning"
    assert {name: json.loads(value) for name, value in given.items()} == {
        "runs": ["a1", "b2"],
        "experiments": [experiment_id()],
    }
    assert not re.search(r'[\s"\[\]()]', query)  # it stands in a Markdown link
