"""How a study searches: sampler, pruner, and the values drawn from the search space of the preset (`tune.space`)."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import optuna

from doctogres.presets import replaced, with_values
from doctogres.settings import Preset, SearchRange, TuneSettings, is_used, searched_field

STARTUP_TRIALS: Final = 4  # number of trials before TPE and the pruner take effect


def sampler_of(seed: int, sampled: int) -> optuna.samplers.TPESampler:
    """The sampler of a study's next trial, after `sampled` others.

    A different seed for every trial: no two workers and no resumed study sample the same values.
    """
    of_trial = int(np.random.SeedSequence([seed, sampled]).generate_state(1)[0])
    return optuna.samplers.TPESampler(seed=of_trial, n_startup_trials=STARTUP_TRIALS)


def pruner_of(settings: TuneSettings) -> optuna.pruners.MedianPruner:
    """Stops trials below the median of the earlier ones, in the second half of their epochs.

    Few blocks are unfrozen in the first half: all curves are near chance level and cross later.
    """
    return optuna.pruners.MedianPruner(STARTUP_TRIALS, n_warmup_steps=settings.trial_epochs // 2)


def suggest(trial: optuna.Trial, name: str, values: SearchRange) -> Any:
    """The trial's value for the setting `name`."""
    if values.choices is not None:
        return trial.suggest_categorical(name, values.choices)
    assert values.low is not None  # SearchRange has a range or choices
    assert values.high is not None
    if searched_field(name).annotation is int:
        return trial.suggest_int(name, int(values.low), int(values.high), log=values.log)
    return trial.suggest_float(name, values.low, values.high, log=values.log)


def suggest_all(trial: optuna.Trial, space: Mapping[str, SearchRange], defaults: Mapping[str, Any]) -> None:
    """The trial's values for every setting of the space that its recipe and its head use.

    Args:
        trial: of the study.
        space: the search space.
        defaults: the preset's own values.
    """
    values = dict(defaults)
    for name in sorted(space, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST)):
        if is_used(name, values):
            values[name] = suggest(trial, name, space[name])


FIRST: Final = ("recipe", "head")  # decide which of the other settings are used


def trial_recipe(preset: Preset, values: dict[str, Any]) -> Preset:
    """The preset with the trial's values; unfreezing is scaled to the trial's epochs, so that it reaches every phase."""
    recipe = replaced(with_values(preset, values), "train", {"epochs": preset.tune.trial_epochs})
    every = recipe.train.unfreeze_every
    scale = preset.tune.trial_epochs / preset.train.epochs
    return replaced(recipe, "train", {"unfreeze_every": max(1, round(every * scale)) if every else 0})
