"""What becomes of a trial's run if the trial does not end well."""

from pathlib import Path
from typing import Any

import mlflow
import optuna
import pytest
from optuna.trial import TrialState

from doctogres.presets import load_preset
from doctogres.tracking.interrupted import INTERRUPTED, STATE_TAG
from doctogres.tracking.runs import NOTE_TAG, open_run
from doctogres.tuning import trials
from doctogres.tuning.trials import RUN, TrialInputs, run_trial

pytestmark = pytest.mark.slow  # imports torch


@pytest.mark.parametrize(
    ("error", "status", "state", "words"),
    [
        (KeyboardInterrupt, "KILLED", INTERRUPTED, "Interrupted"),
        (RuntimeError("no memory"), "FAILED", "FAIL", "no memory"),
    ],
    ids=["interrupted", "failed"],
)
def test_an_interrupted_trial_is_killed_and_a_failed_one_is_failed(
    store: Path, monkeypatch: pytest.MonkeyPatch, error: Any, status: str, state: str, words: str
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(trials, "trial_splits", fail)
    preset = load_preset("demo")
    study = optuna.create_study()
    trial = study.ask()
    with pytest.raises((KeyboardInterrupt, RuntimeError)), open_run("tune"):
        run_trial(trial, {"dropout": 0.1}, TrialInputs({}, preset.patch, preset, seed=1))
    assert study.trials[0].state == TrialState.RUNNING  # its worker tells the study
    run = mlflow.get_run(trial.user_attrs[RUN])
    assert run.info.status == status
    assert run.data.tags[STATE_TAG] == state
    assert words in run.data.tags[NOTE_TAG]
    assert mlflow.get_run(run.data.tags["mlflow.parentRunId"]).info.status == status
