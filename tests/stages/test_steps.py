"""What `main` says of its stages, and what it keeps of their time."""

import pytest

from doctogres.stages.steps import Steps
from doctogres.tracking.runs import StageResult

STAGES = ("clean", "tune", "train")
PROMISED = {
    "finetune": {"clean": 10.0, "tune": 60.0, "train": 200.0},
    "probe": {"clean": 10.0, "tune": 60.0, "train": 5.0},
}


def done(stage: str) -> StageResult:
    return StageResult(stage, "run", {}, {})


def test_every_stage_says_which_one_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    step = Steps(STAGES, {})
    for stage in STAGES:
        assert step(stage, lambda stage=stage: done(stage)).stage == stage  # type: ignore[misc]
    assert capsys.readouterr().out.splitlines() == [
        "main: stage 1 of 3: clean",
        "main: stage 2 of 3: tune",
        "main: stage 3 of 3: train",
    ]
    assert step.metrics == {}


def test_with_a_promise_it_says_how_long_this_one_and_the_rest_take() -> None:
    step = Steps(STAGES, PROMISED)
    assert step.heading("clean") == "stage 1 of 3: clean, about 00:10; about 01:15 to 04:30 until the end"
    assert step.heading("train") == "stage 3 of 3: train, about 00:05 to 03:20; about 00:05 to 03:20 until the end"
    step.choose("probe")
    assert step.heading("train") == "stage 3 of 3: train, about 00:05; about 00:05 until the end"


def test_promised_and_taken_are_kept_even_if_another_stage_fails() -> None:
    step = Steps(STAGES, PROMISED)
    step("clean", lambda: done("clean"))
    step.choose("probe")

    def fail() -> StageResult:
        raise ValueError

    with pytest.raises(ValueError):
        step("tune", fail)
    metrics = step.metrics
    assert (metrics["promised/clean"], metrics["promised/train"]) == (10.0, 5.0)
    assert [name for name in metrics if name.startswith("taken/")] == ["taken/clean"]
