"""The Optuna study: trials on folds of the training part, in Optuna's own RDB storage."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna
from matplotlib.figure import Figure

from doctogres.errors import ParameterError
from doctogres.settings import SearchRange, TrainSettings, TuneSettings

FINISHED: Final = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
STARTUP_TRIALS: Final = 4  # TPE and the pruner look at this many trials before they judge


@dataclass(frozen=True)
class StudyResult:
    """The finished study and its best trial's settings."""

    study: optuna.Study
    best: dict[str, Any]
    default: optuna.trial.FrozenTrial | None  # the trial of the preset's own recipe


def suggest(trial: optuna.Trial, name: str, values: SearchRange) -> Any:
    """The trial's value for the setting `name`."""
    if values.choices is not None:
        return trial.suggest_categorical(name, values.choices)
    assert values.low is not None  # SearchRange holds a range or choices
    assert values.high is not None
    if TrainSettings.model_fields[name].annotation is int:
        return trial.suggest_int(name, int(values.low), int(values.high), log=values.log)
    return trial.suggest_float(name, values.low, values.high, log=values.log)


def storage_for(url: str) -> optuna.storages.RDBStorage:
    """Optuna's RDB storage; the folder of a SQLite file is made."""
    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return optuna.storages.RDBStorage(url)


def run_study(
    objective: Callable[[optuna.Trial, dict[str, Any]], float],
    *,
    name: str,
    storage: str,
    settings: TuneSettings,
    defaults: Mapping[str, Any],
    seed: int,
) -> StudyResult:
    """Runs the trials that the study still lacks; finished ones of an earlier process count.

    Args:
        objective: gets the trial and its settings, returns what is maximised; reports and prunes by itself.
        name: of the study in the storage.
        storage: URL of the storage.
        settings: number of trials and space.
        defaults: the recipe's own values, which the first trial tries, so that tuning cannot end worse unnoticed.
        seed: of the sampler.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=storage_for(storage),
        study_name=name,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=settings.trial_epochs // 3),
    )
    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):  # left by a killed process
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    # A study that goes on must not draw the values again that it drew before it stopped.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.get_trials()), n_startup_trials=STARTUP_TRIALS)
    recipe = {key: defaults[key] for key in settings.space}
    if default_trial(study, recipe) is None:
        study.enqueue_trial(recipe)
    done = study.get_trials(states=FINISHED)
    study.optimize(
        lambda trial: objective(trial, {key: suggest(trial, key, values) for key, values in settings.space.items()}),
        n_trials=max(0, settings.trials - len(done)),
    )
    if not study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
        raise ParameterError(f"trials={settings.trials}: no trial of the study {name} was completed; give more trials")
    return StudyResult(study, dict(study.best_trial.params), default_trial(study, recipe))


def default_trial(study: optuna.Study, recipe: Mapping[str, Any]) -> optuna.trial.FrozenTrial | None:
    """The trial of the recipe's own values, finished or still waiting; None when there is none."""
    for trial in study.get_trials(states=(*FINISHED, optuna.trial.TrialState.WAITING)):
        if {**trial.system_attrs.get("fixed_params", {}), **trial.params} == dict(recipe):
            return trial
    return None


def study_figures(study: optuna.Study) -> dict[str, Figure]:
    """History, and from two finished trials on the importance of the settings and a slice per setting."""
    from optuna.visualization import matplotlib as plots

    complete = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    makers: dict[str, Any] = {"history": plots.plot_optimization_history}
    if len({trial.value for trial in complete}) > 1 and complete[0].params:
        makers |= {"importance": plots.plot_param_importances, "slice": plots.plot_slice}
    figures: dict[str, Figure] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for name, make in makers.items():
            axes: Any = make(study)  # one Axes, or an array of them
            figures[name] = np.atleast_1d(axes).flat[0].figure
    return figures
