"""The outcome of a study: how its trials ended, and the gain of the best trial over the preset's own settings."""

from collections import Counter

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.comparison import compare
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
    return sentence, {"gain/slide_macro_f1": gain.value, "gain/low": gain.low, "gain/high": gain.high}


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
