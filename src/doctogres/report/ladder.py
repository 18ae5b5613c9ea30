"""The results ladder as a Markdown table and a figure."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.ladder import HELPS, HURTS, NOT_SHOWN, SAME
from doctogres.evaluation.null_models import NULL_MODELS
from doctogres.pages import markdown, markdown_code
from doctogres.report.figures import BLUE, GREEN, GREY, ORANGE

COLOURS: Final = {HELPS: GREEN, HURTS: ORANGE, NOT_SHOWN: BLUE, SAME: GREY, "": BLUE}


def ladder_markdown(table: pd.DataFrame, null: Mapping[str, Estimate], slides: int) -> str:
    """Returns the table in Markdown, with the null models (`NULL_MODELS`) and notes on the intervals below it."""
    seeds = len(table["by_seed"].iloc[0].split())
    lines = [
        "| | row | macro-F1 [95 % CI] | lowest to highest seed | difference from the previous row [95 % CI] | verdict | minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    row: Any
    for number, row in enumerate(table.itertuples(index=False), 1):
        changes = "" if row.verdict in ("", SAME) else f" ({markdown_code(row.changes)})"
        difference = (
            f"{row.difference:+.3f} [{row.difference_low:+.3f}, {row.difference_high:+.3f}]" if row.verdict else ""
        )
        lines.append(
            f"| {number} | {markdown(row.row)}{changes} | {Estimate(row.macro_f1, row.low, row.high)} | {row.lowest_seed:.3f} to "
            f"{row.highest_seed:.3f} | {difference} | {row.verdict} | {row.seconds / 60:.1f} |"
        )
    bounds = "; ".join(f"{text}: {null[name]}" for name, text in NULL_MODELS.items())
    trained = (
        "one network per row, so the differences are between two networks, not between two recipes"
        if seeds == 1
        else f"mean over {seeds} seeds"
    )
    return "\n".join(
        [
            *lines,
            "",
            f"Null models, which do not look at the slide: {bounds}.",
            "",
            f"All rows are evaluated on the same {slides} hold-out slides; {trained}. The intervals show how the numbers would "
            "vary on other slides, not with other seeds. Seeds vary weights, order and augmentation, with the same fold left "
            "out for early stopping; a difference smaller than the range over seeds may be due to chance. "
            f"`{HELPS}` or `{HURTS}`: the interval of the difference excludes zero; `{NOT_SHOWN}`: it includes zero.",
            "",
        ]
    )


def ladder_figure(table: pd.DataFrame, null: Mapping[str, Estimate]) -> Figure:
    """Returns macro-F1 per row with its interval and individual seeds, and the difference from the previous row."""
    positions = np.arange(len(table))
    colours = [COLOURS[word] for word in table["verdict"]]
    figure = Figure(figsize=(11, 2.2 + 0.48 * len(table)))
    figure.set_layout_engine("constrained", h_pad=0.12)
    scores, steps = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for name, style in zip(NULL_MODELS, ("--", ":"), strict=True):
        scores.axvline(null[name].value, color=GREY, linestyle=style, linewidth=1.2, label=NULL_MODELS[name])
    for position, values in zip(positions, table["by_seed"], strict=True):
        by_seed = [float(value) for value in values.split()]
        # below the interval, so that neither hides the other
        scores.plot(by_seed, [position + 0.24] * len(by_seed), "o", color=GREY, markersize=4, alpha=0.8)
    scores.plot([], [], "o", color=GREY, markersize=4, label="individual seed")
    scores.hlines(positions, table["low"], table["high"], color=BLUE, linewidth=2.2)
    scores.plot(table["macro_f1"], positions, "o", color=BLUE, markersize=8, label="mean over seeds, 95 % interval")
    scores.set_yticks(
        positions, [f"{position + 1}  {name}" for position, name in zip(positions, table["row"], strict=True)]
    )
    scores.set(xlabel="macro-F1 on the hold-out", ylim=(len(table) - 0.4, -0.6))
    steps.axvline(0, color=GREY, linewidth=1.2)
    steps.hlines(positions, table["difference_low"], table["difference_high"], color=colours, linewidth=2.2)
    steps.scatter(table["difference"], positions, c=colours, s=60, zorder=3)
    steps.tick_params(axis="y", left=False)
    steps.set(xlabel="difference from the previous row")
    words = steps.secondary_yaxis("right")
    words.set_yticks(positions, table["verdict"])
    words.tick_params(length=0)
    words.spines["right"].set_visible(False)
    for text, colour in zip(words.get_yticklabels(), colours, strict=True):
        text.set(color=colour, fontweight="bold")
    for axes in (scores, steps):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_title(
            "Score of each row" if axes is scores else "Gain of each step",
            loc="left",
            fontsize=13,
            fontweight="bold",
        )
    figure.legend(frameon=False, loc="outside lower center", ncols=4)
    return figure
