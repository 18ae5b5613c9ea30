"""monitor with a classifier that was never trained: what it leaves, what it refuses, and the command's exit status."""

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from doctogres.errors import DoctogresError, ParameterError, UpstreamError
from doctogres.serving.answers import as_line
from doctogres.serving.logged import log_classifier
from doctogres.stages.monitor import monitor
from entrypoints.monitor import command
from tests.evaluation.test_drift import drawn
from tests.stages.test_evaluate_stage import local, untrained

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(module_store: Path) -> str:
    return logged(drawn(np.random.default_rng(1), 120).drop(columns="time"))


def logged(reference: pd.DataFrame | None) -> str:
    """The address of a model with these training slides."""
    classifier = untrained(["a", "b", "c", "d"])
    evidence = {} if reference is None else {"reference": reference.to_dict("list")}
    with mlflow.start_run():
        return log_classifier(type(classifier)(classifier.card, classifier.networks, evidence), metadata={})


def written(folder: Path, model: str, rows: pd.DataFrame) -> str:
    """An answer log of these rows."""
    folder.mkdir(parents=True)
    own = {"model_id": model.removeprefix("models:/"), "model_version": "doctogres/1"}
    plain = rows.assign(time=rows["time"].astype(str)).to_dict("records")
    lines = [as_line(own | {str(name): value for name, value in row.items()}) for row in plain]
    (folder / "answers-1.jsonl").write_text("".join(lines))
    return str(folder)


@pytest.fixture
def clean(model: str, tmp_path: Path) -> str:
    return written(tmp_path / "clean", model, drawn(np.random.default_rng(2), 200))


@pytest.fixture
def shifted(model: str, tmp_path: Path) -> str:
    """From the fifth day on, the glass is darker."""
    rows = drawn(np.random.default_rng(2), 200)
    return written(tmp_path / "shifted", model, rows.assign(glass=rows["glass"] - 20 * (rows.index >= 96)))


def test_a_shift_is_an_alarm_in_the_note_on_the_page_and_on_the_terminal(
    model: str, shifted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = monitor(answers=shifted, model=model)
    assert (result.metrics["alarms"], result.metrics["slides"]) == (1, 200)
    assert result.title == "1 alarm in 200 slides of 2026-11-01 to 2026-11-09 monitor"
    said = "brightness of the glass: from 240 "
    page = local(result.artifacts["report"]).read_text()
    note = mlflow.get_run(result.run_id).data.tags["mlflow.note.content"]
    for text in (page, note, capsys.readouterr().out):
        assert said in text
    shifts = pd.read_csv(local(result.artifacts["shifts"])).set_index("quantity")
    assert shifts["alarm"].sum() == 1
    assert shifts.loc["glass", "shift"] == pytest.approx(result.metrics["shift/glass"])
    days = MlflowClient().get_metric_history(result.run_id, "day/glass")
    assert [day.step for day in days] == list(range(9))
    assert days[0].value > 235 > 225 > days[-1].value
    assert len(MlflowClient().get_metric_history(result.run_id, "day/slides")) == 9
    assert monitor(answers=shifted, model=model).reused


def test_a_period_without_a_shift_raises_no_alarm(model: str, clean: str, shifted: str) -> None:
    assert monitor(answers=clean, model=model).metrics["alarms"] == 0
    before = monitor(answers=shifted, model=model, until="2026-11-04")
    assert (before.metrics["alarms"], before.metrics["slides"]) == (0, 96)
    after = monitor(answers=shifted, model=model, since="2026-11-05")
    assert (after.metrics["alarms"], after.metrics["slides"]) == (1, 104)


def test_the_command_ends_with_3_if_there_is_an_alarm_also_of_an_earlier_run(
    model: str, clean: str, shifted: str
) -> None:
    command.main(["--answers", clean, "--model", model])
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            command.main(["--answers", shifted, "--model", model])
        assert ended.value.code == 3


@pytest.mark.parametrize(
    ("given", "error", "problem"),
    [
        ({"answers": ""}, ParameterError, "answers is empty; give the folder"),
        ({"answers": "nowhere"}, UpstreamError, "nowhere.* cannot be read.*DOCTOGRES_ANSWER_LOG"),
        ({"alpha": "5"}, ParameterError, "alpha=5: give a number between 0 and 1"),
        ({"since": "yesterday"}, ParameterError, "since=yesterday: give a date such as"),
        ({"since": "2026-11-05", "until": "2026-11-04"}, ParameterError, "since=2026-11-05 is after until=2026-11-04"),
        ({"since": "2027-01-01"}, UpstreamError, "no answers of models:/m-.* in this period.*give another period"),
    ],
)
def test_what_is_refused(
    model: str, clean: str, given: dict[str, Any], error: type[DoctogresError], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        monitor(**{"answers": clean, "model": model} | given)


def test_answers_of_another_model_and_models_without_a_reference_are_refused(model: str, clean: str) -> None:
    other = logged(None)
    with pytest.raises(UpstreamError, match=r"did not keep what its training slides look like.*train"):
        monitor(answers=clean, model=other)
    another = logged(pd.DataFrame({"label": ["a", "b"]}))
    with pytest.raises(UpstreamError, match="only of doctogres/1; give another period or model="):
        monitor(answers=clean, model=another)
