"""The study's figures."""

import warnings
from functools import partial
from typing import Any, Final

import matplotlib
import numpy as np
import optuna
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState

SCORE: Final = "slide-level macro-F1"
FEW_TRIALS: Final = 30


def study_figures(study: optuna.Study) -> dict[str, Figure]:
    """History, curves and timeline of the trials; with at least two different scores also slices and importances."""
    from optuna.visualization import matplotlib as plots

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    makers: dict[str, tuple[Any, str]] = {
        "history": (
            partial(plots.plot_optimization_history, target_name=SCORE),
            "Score of each trial and the best so far",
        ),
        "timeline": (plots.plot_timeline, "When each trial ran and how it ended"),
    }
    if any(trial.intermediate_values for trial in complete):
        title = "Scores reported to the pruner: slide-level macro-F1 per epoch"
        makers["intermediate_values"] = plots.plot_intermediate_values, title
    if len({trial.value for trial in complete}) > 1 and complete[0].params:
        makers["importance"] = (
            partial(plots.plot_param_importances, target_name=SCORE),
            _importance_title(len(complete)),
        )
        makers["slice"] = partial(plots.plot_slice, target_name=SCORE), "Score by setting, one point per trial"
    figures: dict[str, Figure] = {}
    # Optuna changes the style of the whole process.
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Attempting to set identical")  # a slice of one value
        warnings.filterwarnings("ignore", message="Some regimes for parameter")  # the title has the caveat
        for name, (make, title) in makers.items():
            axes: Any = make(study)  # one Axes, or an array of them
            panels = np.atleast_1d(axes).flatten().tolist()
            figure = panels[0].figure
            for panel in panels:
                panel.set_title("", loc="left")
                panel.set_title("" if len(panels) > 1 else title)
                panel.xaxis.set_minor_formatter(NullFormatter())  # labels overlap on a logarithmic axis
                if panel.get_ylabel() == "Intermediate Value":
                    panel.set_ylabel(SCORE)
            for panel in figure.axes:
                for axis in (panel.xaxis, panel.yaxis):
                    if axis.get_label_text() == "Trial":
                        axis.set_major_locator(MaxNLocator(integer=True))
            if len(panels) > 1:
                figure.suptitle(title)
            figures[name] = figure
    return figures


def _importance_title(trials: int) -> str:
    """The title, with a caveat where a forest fitted to so few trials mostly shows chance."""
    caveat = f"\nonly {trials} trials: with fewer than {FEW_TRIALS} the order is mostly chance" * (trials < FEW_TRIALS)
    return f"Importance of each setting for the score{caveat}"
