"""The study's figures."""

import warnings
from typing import Any

import matplotlib
import numpy as np
import optuna
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState


def study_figures(study: optuna.Study) -> dict[str, Figure]:
    """History, curves and timeline of the trials, and from two different scores on each setting's slice and importance."""
    from optuna.visualization import matplotlib as plots

    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    makers: dict[str, tuple[Any, str]] = {
        "history": (plots.plot_optimization_history, "Score of every trial, and the best so far"),
        "timeline": (plots.plot_timeline, "When each trial ran, and how it ended"),
    }
    if any(trial.intermediate_values for trial in complete):
        title = "What the pruner saw: slide-level macro-F1 per epoch"
        makers["intermediate_values"] = plots.plot_intermediate_values, title
    if len({trial.value for trial in complete}) > 1 and complete[0].params:
        makers["importance"] = plots.plot_param_importances, "How much each setting moves the score"
        makers["slice"] = plots.plot_slice, "Score against each setting, a point per trial"
    figures: dict[str, Figure] = {}
    # Optuna sets a style for the whole process.
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Attempting to set identical")  # a slice of one value
        for name, (make, title) in makers.items():
            axes: Any = make(study)  # one Axes, or an array of them
            panels = np.atleast_1d(axes).flatten().tolist()
            figure = panels[0].figure
            for panel in panels:
                panel.set_title("", loc="left")
                panel.set_title("" if len(panels) > 1 else title)
                panel.xaxis.set_minor_formatter(NullFormatter())  # a logarithmic axis writes one over the other
                if panel.get_ylabel() in ("Objective Value", "Intermediate Value"):
                    panel.set_ylabel("slide-level macro-F1")
            if len(panels) > 1:
                figure.suptitle(title)
            figures[name] = figure
    return figures
