"""The evaluation as one self-contained HTML file: no script, no outside address, everything from the data escaped."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import pandas as pd
from markupsafe import escape

from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.metrics import PER_CLASS
from doctogres.evaluation.null_models import NULL_MODELS
from doctogres.model.temperature import Calibration
from doctogres.pages import page
from doctogres.slides.images import data_address

PAGE_BYTES: Final = 4_800_000  # opens fast and goes through a mail: under 5 MB with whatever counts as a MB
TABLE_BYTES: Final = 800_000

METRICS: Final = {
    "macro_f1": ("Macro-F1", "mean over the classes of F1, so that a rare class counts as much as a common one"),
    "accuracy": ("Accuracy", "share of right answers"),
    "balanced_accuracy": ("Balanced accuracy", "mean over the classes of the share found"),
    "macro_auroc": ("Macro AUROC", "chance that a case of a class gets more of its probability than another; 0.5 is a coin"),
    "log_loss": ("Log loss", "less is better; it punishes being sure and wrong"),
    "brier": ("Brier score", "less is better, 0 to 2"),
    "ece": ("Calibration error (ECE)", "less is better; mean gap between stated confidence and the share of right answers"),
    "coverage": ("Coverage", "share of slides that the model is sure of: the others are marked as not sure"),
    "answered_accuracy": ("Accuracy of the answered", "share of right answers among those slides"),
    **{
        name: (f"Null model: {words}", "macro-F1 without looking at a slide, from the training part's labels")
        for name, words in NULL_MODELS.items()
    },
}  # fmt: skip
PATCH: Final = "patch/"


def render_report(
    *,
    title: str,
    slides: str,
    classes: Sequence[str],
    metrics: Mapping[str, Estimate],
    null: Mapping[str, Estimate],
    raw_ece: Estimate,
    calibration: Calibration,
    evidence: Mapping[str, Any],
    figures: Mapping[str, bytes],
    gallery: Callable[[int], str],
    predictions: pd.DataFrame,
    facts: Mapping[str, str],
) -> str:
    """Returns the report as one HTML document of less than 5 MB; its first line is the result in one sentence.

    Args:
        title: of the document.
        slides: how many of which split, as in "48 hold-out slides".
        classes: the class order.
        metrics: from `metrics.slide_metrics`, and from `metrics.patch_metrics` under `patch/...`; `<kind>/<class>`
            keys make the tables by class.
        null: from `metrics.null_metrics`.
        raw_ece: calibration error of the slides' probabilities before the model's temperature.
        calibration: the model's.
        evidence: how the model's networks did out of fold, see `oof.assess`; empty where that was not measured.
        figures: caption -> PNG.
        gallery: called with the bytes that are left, returns the slides to look at as HTML; empty for none.
        predictions: a row per slide; as many are shown as fit 0.8 MB.
        facts: what ran: model, data, settings, versions.
    """
    of_patches = {key.removeprefix(PATCH): one for key, one in metrics.items() if key.startswith(PATCH)}
    of_slides = {key: one for key, one in metrics.items() if not key.startswith(PATCH)}
    values = {
        "title": title,
        "result": result_sentence(slides, metrics, null),
        "answered": answer_sentence(len(predictions), metrics, calibration),
        "calibrated": ece_sentence(metrics, raw_ece, calibration),
        "slide_metrics": _metric_rows({**of_slides, **null}),
        "slide_classes": _class_rows(of_slides, classes),
        "patch_metrics": _metric_rows(of_patches),
        "patch_classes": _class_rows(of_patches, classes),
        "figures": {caption: data_address(png, "png") for caption, png in figures.items()},
        "evidence": evidence,
        "ways": _way_rows(evidence),
        "calibration": _calibration_text(calibration),
        "slides": len(predictions),
        "columns": [str(column) for column in predictions.columns],
        "rows": _prediction_rows(predictions),
        "facts": [(Cell(name), Cell(fact)) for name, fact in facts.items()],
    }
    filled = partial(page, __package__, "report.html", **values)
    left = PAGE_BYTES - len(filled(gallery="").encode())
    return filled(gallery=gallery(left))


def result_sentence(slides: str, metrics: Mapping[str, Estimate], null: Mapping[str, Estimate]) -> str:
    """Returns the result: macro-F1 beside what the null models reach, and whether its interval leaves them behind."""
    model = metrics.get("macro_f1")
    rivals = {key: null[key] for key in NULL_MODELS if key in null and math.isfinite(null[key].value)}
    if model is None or not math.isfinite(model.value) or not rivals:
        return f"{slides}: there is no null model to compare with, so these numbers do not show that the model learned anything."
    reached = ", ".join(f"{NULL_MODELS[key]} {rival}" for key, rival in rivals.items())
    start = f"On {slides} the model reaches a macro-F1 of {model} (95 % interval); {reached}: "
    if not (math.isfinite(model.low) and math.isfinite(model.high)):
        return start + "too few independent slides for an interval, so they cannot be told apart."
    best = max(rival.value for rival in rivals.values())
    if model.low > best:  # the gate's rule
        return start + "the model is better than these null models, with its whole interval."
    if model.high < best:
        return start + "the model is WORSE than a null model, with its whole interval."
    return start + "a null model lies inside its interval, so these slides do not show that the model is better."


def answer_sentence(slides: int, metrics: Mapping[str, Estimate], calibration: Calibration) -> str:
    """Returns what the model's threshold comes to on these slides."""
    coverage, accuracy = metrics.get("coverage"), metrics.get("answered_accuracy")
    if coverage is None or accuracy is None or (calibration.threshold <= 0 and coverage.value == 1):
        return "The model answers every slide: it has no threshold under which it says that it is not sure."
    if calibration.threshold > 1:
        return (
            f"Every slide is marked as not sure: out of fold, no confidence reached {calibration.target_precision:.0%} right answers."
        )  # fmt: skip
    answered = round(coverage.value * slides)
    right = f"; {round(accuracy.value * answered)} of these {answered} are right" if answered else ""
    threshold = (
        f"A slide whose confidence is under {calibration.threshold:.2f} is marked as not sure: out of fold, at least "
        f"{calibration.target_precision:.0%} of the answers above that were right. A slide whose mask cannot be right is, too."
        if calibration.threshold > 0
        else "Only slides whose mask cannot be right are marked as not sure."
    )
    return f"{threshold} Here {answered} of {slides} slides are answered{right}."


def ece_sentence(metrics: Mapping[str, Estimate], raw_ece: Estimate, calibration: Calibration) -> str:
    """Returns what the temperature did to the calibration error on these slides."""
    if calibration.temperature == 1 or "ece" not in metrics:
        return "The model's confidence is as the networks state it (no temperature was fitted)."
    return (
        f"Calibration error on these slides: {raw_ece} as the networks state it, {metrics['ece']} after the temperature "
        f"{calibration.temperature:.2f} that was fitted out of fold."
    )


class Cell(NamedTuple):
    """A cell of a table; `kind` is its class in the style, `number` or `note`."""

    text: str
    kind: str = ""


Row = tuple[Cell, ...]


def _metric_rows(metrics: Mapping[str, Estimate]) -> list[Row]:
    return [
        (
            Cell(METRICS.get(key, (key, ""))[0]),
            *_estimate_cells(one),
            Cell(METRICS.get(key, ("", ""))[1], "note"),
        )
        for key, one in metrics.items()
        if key.partition("/")[0] not in PER_CLASS or "/" not in key
    ]


def _class_rows(metrics: Mapping[str, Estimate], classes: Sequence[str]) -> list[Row]:
    measured = {name: [metrics.get(f"{kind}/{name}") for kind in PER_CLASS] for name in classes}
    return [
        (Cell(name), *(Cell("" if one is None else str(one), "number") for one in estimates))
        for name, estimates in measured.items()
        if any(estimates)
    ]


def _estimate_cells(estimate: Estimate) -> Row:
    interval = f"{estimate.low:.3f} – {estimate.high:.3f}" if math.isfinite(estimate.low + estimate.high) else "none"
    value = f"{estimate.value:.3f}" if math.isfinite(estimate.value) else "undefined"
    return Cell(value, "number"), Cell(interval, "number")


def _way_rows(evidence: Mapping[str, Any]) -> list[Row]:
    rows = []
    for way in evidence.get("aggregations", ()):
        name = way["name"] + (" (chosen)" if way["chosen"] else "")
        difference = (str(Estimate.from_dict(way["difference"])), way["against"]) if way["difference"] else ("", "")
        rows.append(tuple(map(Cell, (name, str(Estimate.from_dict(way["macro_f1"])), *difference))))
    return rows


def _calibration_text(calibration: Calibration) -> str:
    before, after = calibration.ece_before, calibration.ece_after
    text = f"Temperature {calibration.temperature:.2f}."
    if before is not None and after is not None:
        text += f" Calibration error {before:.3f} before, {after:.3f} after, judged on slides that the temperature was not fitted on."
    if calibration.precision is not None and calibration.coverage is not None:
        text += (
            f" At the threshold {calibration.threshold:.2f}, {calibration.coverage:.0%} of these slides are answered and "
            f"{calibration.precision:.0%} of those answers are right (on the slides that chose it, hence somewhat favourable)."
        )
    return text


def _prediction_rows(predictions: pd.DataFrame) -> list[Row]:
    """As many rows as fit TABLE_BYTES."""
    rows: list[Row] = []
    left = TABLE_BYTES
    for values in predictions.itertuples(index=False, name=None):
        row = tuple(map(_value_cell, values))
        left -= sum(map(_size, row))
        if left < 0:
            break
        rows.append(row)
    return rows


def _size(cell: Cell) -> int:
    """Bytes of a cell in the page."""
    return len(escape(cell.text).encode()) + len("<td></td>") + (len(f' class="{cell.kind}"') if cell.kind else 0)


def _value_cell(value: object) -> Cell:
    if isinstance(value, float):
        return Cell(f"{value:.3f}" if math.isfinite(value) else "", "number")
    return Cell("" if value is None or value is pd.NA else str(value))
