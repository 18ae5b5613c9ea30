"""The Optuna study: trials on the training folds, shared by any number of workers through Optuna's RDB storage."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from doctogres.errors import ParameterError
from doctogres.settings import TuneSettings
from doctogres.tuning.workers import (
    DEFAULT,
    FINISHED,
    POLL,
    locked,
    open_study,
    quiet,
    run_claimed,
    take_trial,
)


@dataclass(frozen=True)
class StudyResult:
    """The finished study, its best trial, and the trial of the preset's own settings, if completed."""

    study: optuna.Study
    best_trial: FrozenTrial
    default: FrozenTrial | None


def run_study(
    objective: Callable[[optuna.Trial, dict[str, Any]], float],
    *,
    name: str,
    storage: str,
    settings: TuneSettings,
    defaults: Mapping[str, Any],
    seed: int,
    report: Callable[[int, int], None] | None = None,
) -> StudyResult:
    """Runs trials until the study has the requested number, together with any other process that calls this.

    Finished trials of earlier or other processes count. A trial whose process died is repeated with the same values.
    The call returns when all trials are finished, wherever they run, so that every worker gets the same result.

    Args:
        objective: gets the trial and its settings, returns the score to maximise; reports and prunes by itself.
        name: name of the study in the storage.
        storage: URL of the storage, SQLite or PostgreSQL.
        settings: number of trials and search space.
        defaults: the preset's own values, used by the first trial, so that a tuning without gain is noticed.
        seed: seed of the sampler.
        report: called with (finished, requested) trials.

    Raises:
        ParameterError: the storage cannot be used, or no trial was completed.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study, database = open_study(name, storage, settings)
    while (finished := len(study.get_trials(deepcopy=False, states=FINISHED))) < settings.trials:
        if report:
            report(finished, settings.trials)
        with locked(storage), quiet():
            trial = take_trial(study, database, defaults, settings, seed)
        if trial is None:
            time.sleep(POLL)
        else:
            run_claimed(study, database, trial, objective)
    if report:
        report(finished, settings.trials)
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    if not complete:
        raise ParameterError(f"trials={settings.trials}: no trial of the study {name} was completed; give more trials")
    best = max(complete, key=lambda trial: (trial.value, DEFAULT in trial.user_attrs, -trial.number))
    return StudyResult(study, best, next((trial for trial in complete if DEFAULT in trial.user_attrs), None))
