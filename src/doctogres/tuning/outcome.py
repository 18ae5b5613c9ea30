"""The outcome of a study: how its trials ended, what the best gained over the preset's own settings, and which is kept."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.comparison import compare
from doctogres.evaluation.metrics import class_indices, macro_f1
from doctogres.names import interval
from doctogres.settings import HIGHEST, TuneSettings
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


@dataclass(frozen=True)
class Outcome:
    """What a study came to.

    Attributes:
        kept: the trial whose settings the study hands on.
        sentence: for the run's note: the scores and what the best trial gained over the preset's own settings.
        metrics: the gain with its interval; empty if there is nothing to compare.
    """

    kept: FrozenTrial
    sentence: str
    metrics: dict[str, float] = field(default_factory=dict)


def outcome_of(result: StudyResult, part: TrainingPart, settings: TuneSettings) -> Outcome:
    """The trial to keep by `best_trial`, and the gain of the best trial over the preset's own settings."""
    best, default = result.best_trial, result.default
    reached = f"The best trial is {_name(best)} with a slide-level macro-F1 of {best.value:.3f}"
    if default is None:
        return Outcome(
            best, f"{reached}; the trial of the preset's own settings was not completed, so there is no comparison."
        )
    if best.number == default.number:
        return Outcome(best, f"{reached}: the preset's own settings, which no other trial beat.")
    slides = _Slides.of(best, part)
    gain = slides.gain(slides.predicted(best), slides.predicted(default))
    beyond_chance = settings.best_trial == HIGHEST or is_beyond_one_error(gain)
    if not beyond_chance:
        caution = f"This is within one standard error of zero, so {_name(default)}, the preset's own settings, is kept."
    elif gain.low <= 0:
        caution = "The interval includes zero: the difference may be due to chance."
    else:
        caution = "The best of several trials was chosen on these same slides, so expect a smaller gain on others."
    sentence = (
        f"{reached}; the preset's own settings reached {default.value:.3f}. "
        f"Difference on the same {len(slides.truth)} slides, with 95 % interval: {gain}. {caution}"
    )
    metrics = {"gain": gain.value, **interval("gain", gain.low, gain.high)}
    return Outcome(best if beyond_chance else default, sentence, metrics)


def is_beyond_one_error(gain: Estimate) -> bool:
    """Whether a gain is larger than one standard error, a quarter of its 95 % interval's width.

    The one-standard-error rule (Breiman et al., Classification and Regression Trees, 1984, section 3.4.3) for a study: of
    settings that the folds cannot tell apart, the known ones are kept, not the luckiest.
    """
    return gain.value > (gain.high - gain.low) / (2 * 1.96)


def nested_estimate(
    result: StudyResult, part: TrainingPart, settings: TuneSettings, *, resamples: int, seed: int
) -> Estimate | None:
    """The macro-F1 of choosing a trial by score, on slides that did not take part in the choice.

    For every fold a trial is chosen on the other folds, as the study chooses; its predictions for this fold count. The best
    trial's own score is the highest of many on the same slides and therefore too high (Varma and Simon, Bias in error
    estimation when using cross-validation for model selection, BMC Bioinformatics 2006). None if the trials were scored on
    one fold only.

    Args:
        result: the study.
        part: the patches available for training.
        settings: how the study chooses.
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.
    """
    slides = _Slides.of(result.best_trial, part)
    folds = slides.table["fold"].to_numpy(str)
    if len(set(folds)) < 2:
        return None
    # On ties the first trial counts: the preset's own settings.
    trials = [
        trial
        for trial in result.study.get_trials(states=(TrialState.COMPLETE,))
        if set(trial.user_attrs.get(PREDICTED, ())) == set(slides.table.index)
    ]
    predicted = [slides.predicted(trial) for trial in trials]
    own = None if result.default is None else slides.predicted(result.default)
    chosen = np.empty(len(folds), np.int64)
    for fold in sorted(set(folds)):
        rows = folds == fold
        chosen[rows] = slides.only(~rows).choice(predicted, own, ~rows, settings)[rows]
    models = {"nested": [np.eye(len(slides.classes))[chosen]]}
    options: dict[str, Any] = {"groups": slides.groups, "resamples": resamples, "seed": seed}
    return compare(slides.labels, models, slides.classes, against={}, **options).values["nested"]


@dataclass(frozen=True)
class _Slides:
    """The slides by which trials are compared: a table with label, group and fold, by slide_id."""

    table: pd.DataFrame
    classes: Sequence[str]

    @classmethod
    def of(cls, trial: FrozenTrial, part: TrainingPart) -> "_Slides":
        table = part.patches.table.drop_duplicates("slide_id").set_index("slide_id")
        return cls(table.loc[sorted(trial.user_attrs[PREDICTED])], part.classes)

    def only(self, rows: NDArray[np.bool_]) -> "_Slides":
        return _Slides(self.table[rows], self.classes)

    @property
    def labels(self) -> list[str]:
        return list(self.table["label"])

    @property
    def groups(self) -> list[str]:
        return list(self.table["group"])

    @property
    def truth(self) -> NDArray[np.int64]:
        return class_indices(self.labels, self.classes)

    def predicted(self, trial: FrozenTrial) -> NDArray[np.int64]:
        """(slides,) class indices."""
        return np.array([trial.user_attrs[PREDICTED][slide] for slide in self.table.index])

    def gain(self, best: NDArray[np.int64], own: NDArray[np.int64]) -> Estimate:
        """Slide-level macro-F1 of one trial minus another's, by the paired bootstrap; (slides,) class indices each."""
        certain = np.eye(len(self.classes))
        models = {"best": [certain[best]], "own": [certain[own]]}
        return compare(self.labels, models, self.classes, against={"best": "own"}, groups=self.groups).differences[
            "best"
        ]

    def choice(
        self,
        predicted: Sequence[NDArray[np.int64]],
        own: NDArray[np.int64] | None,
        rows: NDArray[np.bool_],
        settings: TuneSettings,
    ) -> NDArray[np.int64]:
        """Of the predictions for all slides, those that these slides, the `rows`, choose."""
        scores = [macro_f1(self.truth, of_trial[rows], len(self.classes)) for of_trial in predicted]
        best = predicted[int(np.argmax(scores))]
        if own is None or settings.best_trial == HIGHEST or is_beyond_one_error(self.gain(best[rows], own[rows])):
            return best
        return own


def _name(trial: FrozenTrial) -> str:
    return f"trial-{trial.number:03d}"
