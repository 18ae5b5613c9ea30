"""What `main` says of the champion of its name, and which model answers the test slides."""

from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from doctogres.stages.main import Standing, standing_of, summarise
from doctogres.stages.register import decision
from doctogres.tracking.runs import DATA_TAG, StageResult
from tests.stages.test_register import REGISTERED, cohort, evaluated, stage, trained

pytestmark = pytest.mark.slow


def run_of(name: str, wrong: int, *, data: str = "", classes: tuple[str, ...] = ("a", "b")) -> dict[str, StageResult]:
    """The planted stages of a run: trained, evaluated on slides with this digest, registered."""
    source = cohort(Path("slides"), inputs={"name": name})
    model = trained(name)
    scored = evaluated(model, wrong, classes=list(classes), source=source)
    MlflowClient().set_tag(scored.run_id, DATA_TAG, data)
    metrics = dict.fromkeys(
        ("macro_f1", "ci/macro_f1_low", "ci/macro_f1_high", "null/majority/macro_f1", "null/chance/macro_f1"), 0.5
    )
    return {
        "train": StageResult("train", "", {"model": model}, {}),
        "evaluate": replace(scored, metrics=metrics),
        "register": stage(scored),
    }


def told(results: dict[str, StageResult]) -> tuple[Standing, list[str]]:
    standing = standing_of(REGISTERED, results)
    summary = summarise(results | {"predict": results["evaluate"]}, decision(results["register"]), standing, "link")
    return standing, summary.strip().splitlines()


def test_without_a_champion_the_model_of_the_run_answers_and_the_summary_says_why(store: Path) -> None:
    results = run_of("poor", wrong=20)
    standing, lines = told(results)
    assert standing.model == results["train"].artifacts["model"]
    assert "champion    none" in lines
    assert "test slides answered by the model of this run, because doctogres has no champion" in lines


def test_the_champion_answers_even_if_the_run_made_a_challenger(store: Path) -> None:
    first = run_of("first", wrong=4, data="digest")
    second = run_of("second", wrong=8, data="digest")
    trained_by = mlflow.models.get_model_info(first["train"].artifacts["model"]).run_id
    for results in (first, second):
        standing, lines = told(results)
        assert (standing.model, standing.warning) == ("models:/doctogres/1", "")
        said = f"doctogres version 1: cohort my slides, classes a, b, training run {trained_by}"
        assert f"champion    {said}" in lines
        assert "test slides answered by the champion (doctogres version 1)" in lines


def test_a_champion_of_other_slides_is_named_first_and_answers(store: Path) -> None:
    run_of("first", wrong=4, data="digest")
    standing, lines = told(run_of("second", wrong=8, data="another digest"))
    assert standing.model == "models:/doctogres/1"
    assert lines[0].startswith(
        "warning     the champion has other slides than this run: doctogres version 1: cohort my"
    )


def test_a_champion_of_other_classes_is_named_first_and_does_not_answer(store: Path) -> None:
    run_of("first", wrong=4, data="digest")
    results = run_of("second", wrong=8, data="another digest", classes=("a", "c"))
    for tag in ("classes", "cohort", "training_run"):  # the second time as a version without these tags
        standing, lines = told(results)
        assert standing.model == results["train"].artifacts["model"]
        assert "because the champion (doctogres version 1) has other classes" in standing.answered
        if "classes" in REGISTERED.champion().tags:  # type: ignore[union-attr]
            assert lines[0].startswith("warning     the champion has other classes than this run: ")
            assert "classes a, b" in lines[0]
        MlflowClient().delete_model_version_tag("doctogres", "1", tag)
