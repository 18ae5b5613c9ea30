"""Figures of evaluation, training and cleaning, each a `matplotlib.figure.Figure` without pyplot state."""

import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from doctogres.evaluation.metrics import CALIBRATION_BINS, class_indices, confidence_bins
from doctogres.fonts import families

BLUE: Final = "#0072b2"
ORANGE: Final = "#d55e00"
GREEN: Final = "#009e73"
GREY: Final = "#767676"
NAME_LENGTH: Final = 22


def png_bytes(figure: Figure) -> bytes:
    """Returns a figure as the content of a PNG file; for arrays see `images.encode_png`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=144)
    return buffer.getvalue()


def confusion_figure(truth: Sequence[str], predicted: Sequence[str], classes: Sequence[str]) -> Figure:
    """Returns the confusion matrix: every cell shows the number of slides and their share of the true class."""
    count = len(classes)
    matrix = np.zeros((count, count), dtype=np.int64)
    np.add.at(matrix, (class_indices(truth, classes), class_indices(predicted, classes)), 1)
    totals = matrix.sum(axis=1)
    shares = matrix / np.maximum(totals, 1)[:, None]
    side = 2.8 + 0.85 * count
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.add_subplot()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(count, count):
        colour = "white" if shares[row, column] > 0.55 else "#222222"
        share = f"{shares[row, column]:.0%}" if totals[row] else "–"
        colour = colour if matrix[row, column] else "#8a8a8a"
        number = f"{matrix[row, column]}"
        axes.text(column, row - 0.02, number, ha="center", va="bottom", fontsize=12, fontweight="bold", color=colour)
        axes.text(column, row + 0.06, share, ha="center", va="top", fontsize=9, color=colour)
    names = [_name(name) for name in classes]
    fonts = families(names)
    axes.set_xticks(range(count), names, fontfamily=fonts)
    if max((len(name) for name in names), default=0) > 8:
        for tick in axes.get_xticklabels():
            tick.set(rotation=30, ha="right", rotation_mode="anchor")
    numbered = [f"{name}\n(n = {total})" for name, total in zip(names, totals, strict=True)]
    axes.set_yticks(range(count), numbered, fontfamily=fonts)
    axes.set_xticks(np.arange(1, count) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, count) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted", ylabel="true")
    correct = int(matrix.trace())
    _title(axes, "Confusion matrix", f"{correct} of {matrix.sum()} slides correct; % of the true class")
    figure.colorbar(picture, ax=axes, shrink=0.75, format=PercentFormatter(1.0), label="share of the true class")
    return figure


def reliability_figure(
    truth: Sequence[str],
    probabilities: NDArray[np.float64],
    classes: Sequence[str],
    *,
    raw: NDArray[np.float64] | None = None,
) -> Figure:
    """Returns the share of correct predictions against confidence in ten bins, with the number of slides per bin below.

    Args:
        truth: (slides,) labels.
        probabilities: (slides, classes), after temperature scaling.
        classes: the class order.
        raw: (slides, classes) before temperature scaling, for comparison; None if the model has no temperature.
    """
    error, stated, correct, slides = _calibration(truth, probabilities, classes)
    figure = Figure(figsize=(5.6, 6.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    detail = f"ECE {error:.3f} on {len(truth)} slides"
    if raw is not None:
        before, stated_raw, correct_raw, slides_raw = _calibration(truth, raw, classes)
        _bins(
            upper,
            stated_raw,
            correct_raw,
            slides_raw,
            "before temperature scaling",
            color=ORANGE,
            marker="s",
            markersize=5,
            alpha=0.7,
        )
        detail = f"ECE {before:.3f} before, {error:.3f} after temperature scaling; {len(truth)} slides"
    _bins(upper, stated, correct, slides, "this model", color=BLUE, marker="o", markersize=7)
    upper.set(ylim=(-0.03, 1.03), xlim=(0, 1), ylabel="correct predictions")
    upper.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    upper.legend(frameon=False, loc="best")
    centres = (np.arange(CALIBRATION_BINS) + 0.5) / CALIBRATION_BINS
    lower.bar(centres, slides, width=0.9 / CALIBRATION_BINS, color=BLUE, alpha=0.75)
    lower.set(xlabel="confidence in the predicted class", ylabel="slides")
    lower.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    lower.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _title(upper, "Reliability diagram", detail)
    _tidy(upper, lower)
    return figure


def _bins(
    axes: Axes,
    stated: NDArray[np.float64],
    correct: NDArray[np.float64],
    slides: NDArray[np.int64],
    label: str,
    **style: Any,
) -> None:
    """Draws the bins as points, joined by a line; a bin of a single slide is hollow and the line passes it by."""
    several = slides[slides > 0] > 1
    axes.plot(stated[several], correct[several], linewidth=1.2, label=label, **style)
    if not several.all():
        axes.plot(
            stated[~several], correct[~several], linestyle="", fillstyle="none", label=f"{label}: one slide", **style
        )


def risk_coverage_figure(
    truth: Sequence[str], probabilities: NDArray[np.float64], classes: Sequence[str], *, threshold: float = 0.0
) -> Figure:
    """Returns the risk-coverage curve: error rate against coverage (El-Yaniv and Wiener, JMLR 2010).

    Args:
        truth: (slides,) labels.
        probabilities: (slides, classes).
        classes: the class order.
        threshold: the model's, marked on the curve; 0: the model never abstains.
    """
    correct, confidence = _correct(truth, probabilities, classes)
    order = np.argsort(-confidence, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(confidence[order]) != 0, True])  # slides of equal confidence stay together
    kept = ends + 1
    risk = np.cumsum(1 - correct[order])[ends] / kept
    coverage = kept / len(correct)
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(risk[-1], color=GREY, linestyle="--", linewidth=1)
    axes.step(coverage, risk, where="post", color=BLUE, linewidth=1.8)
    for share, marker in ((0.5, "o"), (0.8, "s"), (1.0, "D")):
        at = min(int(np.searchsorted(coverage, share - 1e-9)), len(coverage) - 1)
        label = f"{coverage[at]:.0%} answered: {risk[at]:.1%} wrong"
        axes.plot(coverage[at], risk[at], marker, color=ORANGE, markersize=7, linestyle="", label=label, clip_on=False)
    if threshold > 0:
        answered = int((confidence >= threshold).sum())
        label = f"threshold {threshold:.2f}: no slide answered"
        if answered:
            at = int(np.searchsorted(kept, answered))
            label = f"threshold {threshold:.2f}: {coverage[at]:.0%} answered, {risk[at]:.1%} wrong"
        place = (coverage[at], risk[at]) if answered else (np.nan, np.nan)
        axes.plot(*place, "*", color=GREEN, markersize=14, linestyle="", label=label, clip_on=False, zorder=5)
    top = max(0.05, float(risk.max()))
    axes.set(xlim=(0, 1.01), ylim=(-0.02 * top, top * 1.4))
    axes.legend(frameon=False, loc="upper left", ncols=2, fontsize=9, columnspacing=1)
    axes.set(xlabel="coverage: slides answered, most confident first", ylabel="risk: errors among them")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    _title(axes, "Risk-coverage curve", f"{len(correct)} slides; the model abstains at low confidence")
    _tidy(axes)
    return figure


def training_curves_figure(networks: Sequence[pd.DataFrame]) -> Figure:
    """Returns loss, macro-F1 and number of trainable parameters by epoch, of every network.

    Args:
        networks: of each, one row per epoch: epoch, train_loss, val_loss, slide_macro_f1, patch_macro_f1,
            trainable_parameters. Curves whose column is missing or empty are left out.
    """
    figure = Figure(figsize=(7.2, 7.4), layout="constrained")
    losses, scores, unfrozen = figure.subplots(3, 1, sharex=True, height_ratios=(2, 2, 1))
    one = len(networks) == 1
    marker = "o" if one and len(networks[0]) < 40 else ""
    for axes, curves in (
        (losses, (("train_loss", "training", ORANGE), ("val_loss", "validation", BLUE))),
        (scores, (("patch_macro_f1", "patches", ORANGE), ("slide_macro_f1", "slides", BLUE))),
    ):
        for column, label, colour in curves:
            known = [history for history in networks if column in history and history[column].notna().any()]
            for number, history in enumerate(known):
                axes.plot(
                    history["epoch"], history[column], color=colour, marker=marker, markersize=3.5,
                    alpha=1 if one else 0.6, linewidth=1.5 if one else 1, label="" if number else label,
                )  # fmt: skip
        if axes.lines:
            axes.legend(frameon=False)
    losses.set(ylabel="loss")
    scores.set(ylabel="validation macro-F1")
    best = [
        history.iloc[int(np.nanargmax(history["slide_macro_f1"].to_numpy(dtype=np.float64)))]
        for history in networks
        if "slide_macro_f1" in history and history["slide_macro_f1"].notna().any()
    ]
    for epoch in best:
        scores.plot(epoch["epoch"], epoch["slide_macro_f1"], marker="*", markersize=14, color=GREEN, zorder=5)
    longest = max(networks, key=len)
    if not best:
        title = f"{len(longest)} epochs"
    elif one:
        title = f"best slide macro-F1 {best[0]['slide_macro_f1']:.3f} at epoch {best[0]['epoch']:.0f}"
    else:
        values = [epoch["slide_macro_f1"] for epoch in best]
        title = f"{len(best)} networks; best slide macro-F1 of each {min(values):.3f} to {max(values):.3f}"
    if "trainable_parameters" in longest:
        unfrozen.bar(longest["epoch"], longest["trainable_parameters"], width=1.0, color=GREY, alpha=0.5)
    unfrozen.yaxis.set_major_formatter(FuncFormatter(_thousands))
    unfrozen.yaxis.set_major_locator(MaxNLocator(nbins=4))
    unfrozen.set(xlabel="epoch", ylabel="trainable\nparameters")
    unfrozen.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    unfrozen.set_xlim(longest["epoch"].min() - 0.5, longest["epoch"].max() + 0.5)
    _title(losses, "Training curves", title)
    _tidy(losses, scores, unfrozen)
    return figure


def class_shares_figure(shares: pd.DataFrame) -> Figure:
    """Returns a bar chart of slides per class before and after cleaning, from label, slides_before, slides_after."""
    rows = np.arange(len(shares))
    figure = Figure(figsize=(7.2, 1.6 + 0.75 * len(shares)), layout="constrained")
    axes = figure.add_subplot()
    for column, label, colour, shift in (
        ("slides_before", "before cleaning", "#a6a6a6", -0.2),
        ("slides_after", "after cleaning", BLUE, 0.2),
    ):
        counts = shares[column].to_numpy()
        total = int(counts.sum())
        bars = axes.barh(rows + shift, counts, height=0.38, color=colour, label=f"{label} ({total})")
        texts = [f"{count}  ({count / max(total, 1):.0%})" for count in counts]
        axes.bar_label(bars, texts, padding=4, fontsize=9, color="#333333")
    names = [_name(str(label)) for label in shares["label"]]
    axes.set_yticks(rows, names, fontfamily=families(names))
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="slides")
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    _title(axes, "Slides per class", "count and share of the cohort")
    _tidy(axes)
    axes.grid(axis="y", visible=False)
    return figure


def _correct(
    truth: Sequence[str], probabilities: NDArray[np.float64], classes: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns (slides,) 1 where the predicted class is correct, otherwise 0, and (slides,) its probability."""
    correct = probabilities.argmax(axis=1) == class_indices(truth, classes)
    return correct.astype(np.float64), np.asarray(probabilities.max(axis=1), dtype=np.float64)


def _calibration(
    truth: Sequence[str], probabilities: NDArray[np.float64], classes: Sequence[str]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Returns the ECE, mean confidence and accuracy of every non-empty bin, and the number of slides per bin."""
    hits, confidence = _correct(truth, probabilities, classes)
    bins = confidence_bins(confidence)
    slides = np.bincount(bins, minlength=CALIBRATION_BINS)
    used = slides > 0
    correct = np.bincount(bins, weights=hits, minlength=CALIBRATION_BINS)[used] / slides[used]
    stated = np.bincount(bins, weights=confidence, minlength=CALIBRATION_BINS)[used] / slides[used]
    error = float((abs(correct - stated) * slides[used]).sum() / max(len(hits), 1))
    return error, stated, correct, slides


def _name(name: str) -> str:
    """Returns a class name for a tick label: on one line, shortened, and never parsed as mathematics."""
    line = " ".join(name.split())
    line = line if len(line) <= NAME_LENGTH else line[: NAME_LENGTH - 1] + "…"
    return line.replace("$", r"\$")


def _title(axes: Axes, title: str, detail: str) -> None:
    axes.set_title(f"{title}\n", loc="left", fontsize=13, fontweight="bold")
    axes.text(0, 1.02, detail, transform=axes.transAxes, fontsize=10, color="#555555", va="bottom")


def _tidy(*panels: Axes) -> None:
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)


def _thousands(value: float, _position: int) -> str:
    return f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k" if value >= 1e3 else f"{value:g}"
