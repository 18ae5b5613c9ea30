"""The page of an evaluation of several models."""

from typing import Final

from doctogres.evaluation.pairs import ComparedModels
from doctogres.pages import page
from doctogres.report.report import METRICS

SHOWN: Final = (
    "macro_f1",
    "accuracy",
    "balanced_accuracy",
    "macro_auroc",
    "log_loss",
    "ece",
    "coverage",
    "answered_accuracy",
)


def pairs_page(compared: ComparedModels, *, slides: str) -> str:
    """One self-contained HTML file; `slides` are their number and split, as in "48 hold-out slides"."""
    return page(
        __package__,
        "pairs.html",
        title=f"{len(compared.models)} models on {slides}",
        groups=compared.groups,
        metrics=[METRICS[name][0] for name in SHOWN],
        models=[(one, [one.metrics[name] for name in SHOWN]) for one in compared.models],
        pairs=compared.pairs,
    )
