"""The outcome of a study: how its trials ended, and the gain of the best trial over the preset's own settings."""

from collections import Counter
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.comparison import compare
from doctogres.evaluation.metrics import class_indices, macro_f1
from doctogres.names import interval
from doctogres.training.part import TrainingPart
from doctogres.tuning.study import StudyResult
from doctogres.tuning.trials import PREDICTED
from doctogres.tuning.workers import ERROR, FINISHED


def trial_counts(result: StudyResult) -> dict[str, int]:
    """Number of trials by state; a trial whose worker died is `interrupted`."""
    return dict(Counter(map(_state, result.study.get_trials(deepcopy=False))))


def finished_numbers(result: StudyResult) -> list[int]:
    """The numbers of the completed and pruned trials."""
    return [trial.number for trial in result.study.get_trials(deepcopy=False) if trial.state in FINISHED]


def _state(trial: FrozenTrial) -> str:
    interrupted = trial.state == TrialState.FAIL and ERROR not in trial.user_attrs
    return "interrupted" if interrupted else trial.state.name.lower()


def gain_of(result: StudyResult, part: TrainingPart) -> tuple[str, dict[str, float]]:
    """The gain of the study over the preset's own settings: a sentence with its interval, and the metrics."""
    best, default = result.best_trial, result.default
    reached = f"The best trial is trial-{best.number:03d} with a slide-level macro-F1 of {best.value:.3f}"
    if default is None:
        return f"{reached}; the trial of the preset's own settings was not completed, so there is no comparison.", {}
    if best.number == default.number:
        return f"{reached}: the preset's own settings, which no other trial beat.", {}
    gain, slides = _gain(default, best, part)
    caution = (
        "The interval includes zero: the difference may be due to chance."
        if gain.low <= 0
        else "The best of several trials was chosen on these same slides, so expect a smaller gain on others."
    )
    sentence = (
        f"{reached}; the preset's own settings reached {default.value:.3f}. "
        f"Difference on the same {slides} slides, with 95 % interval: {gain}. {caution}"
    )
    return sentence, {"gain": gain.value, **interval("gain", gain.low, gain.high)}


def nested_estimate(result: StudyResult, part: TrainingPart, *, resamples: int, seed: int) -> Estimate | None:
    """The macro-F1 of choosing a trial by score, on slides that did not take part in the choice.

    For every fold the trial is chosen that is best on the other folds; its predictions for this fold count. The best
    trial's own score is the highest of many on the same slides and therefore too high (Varma and Simon, Bias in error
    estimation when using cross-validation for model selection, BMC Bioinformatics 2006). None if the trials were scored on
    one fold only.

    Args:
        result: the study.
        part: the patches available for training.
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.
    """
    trials = [
        trial for trial in result.study.get_trials(states=(TrialState.COMPLETE,)) if PREDICTED in trial.user_attrs
    ]
    slides = sorted(result.best_trial.user_attrs[PREDICTED])
    table = part.patches.table.drop_duplicates("slide_id").set_index("slide_id").loc[slides]
    folds, classes = table["fold"].to_numpy(str), len(part.classes)
    if len(set(folds)) < 2:
        return None
    truth = class_indices(table["label"].tolist(), part.classes)
    trials = [trial for trial in trials if set(trial.user_attrs[PREDICTED]) == set(slides)]
    predicted = np.array([[trial.user_attrs[PREDICTED][slide] for slide in slides] for trial in trials])
    chosen = np.empty(len(slides), np.int64)
    for fold in sorted(set(folds)):
        others = folds != fold
        scores = [macro_f1(truth[others], of_trial[others], classes) for of_trial in predicted]
        chosen[~others] = predicted[int(np.argmax(scores))][
            ~others
        ]  # on ties the first trial: the preset's own settings
    models = {"nested": [np.eye(classes)[chosen]]}
    options: dict[str, Any] = {"groups": table["group"].tolist(), "resamples": resamples, "seed": seed}
    return compare(table["label"].tolist(), models, part.classes, against={}, **options).values["nested"]


def _gain(default: FrozenTrial, best: FrozenTrial, part: TrainingPart) -> tuple[Estimate, int]:
    """Slide-level macro-F1 of the best trial minus the default's, by the paired bootstrap, and the number of slides."""
    slides = sorted(best.user_attrs[PREDICTED])
    table = part.patches.table.drop_duplicates("slide_id").set_index("slide_id").loc[slides]
    best_rows, default_rows = (
        np.eye(len(part.classes))[[trial.user_attrs[PREDICTED][slide] for slide in slides]] for trial in (best, default)
    )
    models, pair = {"best": [best_rows], "default": [default_rows]}, {"best": "default"}
    compared = compare(table["label"].tolist(), models, part.classes, against=pair, groups=table["group"].tolist())
    return compared.differences["best"], len(slides)
