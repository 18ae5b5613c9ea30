"""The page of `monitor`: the alarms, every comparison, and the distributions of the training and the period."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from doctogres.evaluation.drift import (
    LABEL,
    LARGE,
    QUANTITIES,
    UNANSWERED,
    Quantity,
    Shift,
    centred,
    values_of,
    with_pixels,
)
from doctogres.fonts import families
from doctogres.pages import page
from doctogres.report.figures import BLUE, GREY, ORANGE, png_bytes
from doctogres.slides.images import data_address

COLUMNS = 3
BINS = 24


def monitor_page(
    result: str,
    alarms: Sequence[str],
    lacking: str,
    shifts: Sequence[Shift],
    reference: pd.DataFrame,
    answers: pd.DataFrame,
    *,
    alpha: float,
) -> str:
    """One self-contained HTML file.

    Args:
        result: the heading.
        alarms: their sentences.
        lacking: what could not be compared, in a sentence; may be empty.
        shifts: all comparisons.
        reference: of the training slides.
        answers: the distinct rows of the period.
        alpha: chance of an alarm without a shift.
    """
    figure = png_bytes(distributions_figure(shifts, reference, answers))
    return page(
        __package__,
        "monitor.html",
        result=result,
        alarms=alarms,
        lacking=lacking,
        shifts=shifts,
        figure=data_address(figure, "png"),
        training=len(reference),
        alpha=f"{alpha:g}",
        large=f"{LARGE:.0%}",
        unanswered=f"{UNANSWERED:.0%}",
        twice=f"{2 * UNANSWERED:.0%}",  # the share of slides without an answer that is an alarm
    )


def distributions_figure(shifts: Sequence[Shift], reference: pd.DataFrame, answers: pd.DataFrame) -> Figure:
    """A histogram per compared quantity: training in grey, the period in blue, or orange where there is an alarm."""
    before, after = with_pixels(reference), with_pixels(answers[answers["label"].notna()])
    shown = [shift for shift in shifts if shift.quantity in QUANTITIES]
    rows = max(1, -(-len(shown) // COLUMNS))
    figure = Figure(figsize=(12, 2.4 * rows), layout="constrained")
    for number, shift in enumerate(shown, 1):
        axes = figure.add_subplot(rows, COLUMNS, number)
        _histograms(axes, shift, values_of(shift.quantity, before), values_of(shift.quantity, after))
    figure.legend(
        *(axes.get_legend_handles_labels() if shown else ([], [])), frameon=False, loc="outside lower center", ncols=2
    )
    return figure


def _histograms(axes: Axes, shift: Shift, old: Any, new: Any) -> None:
    quantity, colour = shift.quantity, ORANGE if shift.alarm else BLUE
    edges, names = _edges(quantity, old, new)
    if quantity.name == LABEL:
        old, new = (np.searchsorted(names, values) for values in (old, new))
        axes.set_xticks(range(len(names)), names, fontfamily=families(names))
    elif quantity.name == "hue":
        old, new = centred(old, old), centred(new, old)
    for values, paint, alpha, who in ((old, GREY, 0.45, "training"), (new, colour, 0.6, "period")):
        axes.hist(values, edges, weights=np.full(len(values), 1 / len(values)), color=paint, alpha=alpha, label=who)
    axes.set_title(quantity.what, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _edges(quantity: Quantity, old: Any, new: Any) -> tuple[Any, list[str]]:
    """The edges of the bars, and the classes."""
    if quantity.name == LABEL:
        names = sorted({*old, *new})
        return np.arange(len(names) + 1) - 0.5, names
    if quantity.name == "hue":
        old, new = centred(old, old), centred(new, old)
    return np.histogram_bin_edges(np.concatenate([old, new]), BINS), []
