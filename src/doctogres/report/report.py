"""The evaluation report as a self-contained HTML file: no scripts, no external URLs, all data escaped."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import pandas as pd
from markupsafe import escape

from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.metrics import PER_CLASS
from doctogres.evaluation.null_models import NULL_MODELS
from doctogres.evaluation.scored_groups import GROUP
from doctogres.evaluation.subgroups import METRICS as SUBGROUP_METRICS
from doctogres.evaluation.subgroups import Subgroup, smallest_subgroup
from doctogres.model.temperature import Calibration
from doctogres.pages import page
from doctogres.slides.images import data_address

PAGE_BYTES: Final = 4_800_000  # opens fast and can be mailed: under 5 MB, decimal or binary
TABLE_BYTES: Final = 800_000

METRICS: Final = {
    "macro_f1": ("Macro-F1", "mean F1 over the classes: a rare class counts as much as a common one"),
    "accuracy": ("Accuracy", "share of correct predictions"),
    "balanced_accuracy": ("Balanced accuracy", "mean recall over the classes"),
    "macro_auroc": ("Macro AUROC", "probability that a slide of the class gets a higher probability for it than a slide of another "
                    "class, averaged over classes; 0.5 is chance"),
    "log_loss": ("Log loss", "lower is better; penalises confident errors"),
    "brier": ("Brier score", "lower is better, 0 to 2"),
    "ece": ("Calibration error (ECE)", "lower is better; mean gap between confidence and accuracy"),
    "coverage": ("Coverage", "share of slides that the model answers; on the others it abstains"),
    "answered_accuracy": ("Accuracy when answered", "share of correct predictions among those slides"),
    "labels_coverage": ("Labels contain the true class",
                        "share of slides whose `labels` contain it; the setting `labels_coverage` is the aim"),
    "labels_size": ("Number of labels", "mean number of labels in that list"),
    "novel": ("Unlike the training slides", "share of slides marked so; 5 % are to be expected if `novelty_quantile` is 0.95"),
    **{
        name: (f"Null model: {words}", "macro-F1 from the training labels alone, without looking at a slide")
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
    groups: str = "",
    subgroups: Sequence[Subgroup] = (),
    given: str = "",
) -> str:
    """Returns the report as an HTML document of less than 5 MB; its heading states the result.

    Args:
        title: of the document.
        slides: their number and split, as in "48 hold-out slides".
        classes: the class order.
        metrics: from `metrics.slide_metrics`, and from `metrics.patch_metrics` under `patch/...`, and of groups under
            `group/...`; keys `<kind>/<class>` go into the tables by class.
        null: from `metrics.null_metrics`.
        raw_ece: calibration error of the slide probabilities before temperature scaling.
        calibration: the model's.
        evidence: the out-of-fold results of the model's networks, see `oof.assess`; empty if not measured.
        figures: caption -> PNG.
        gallery: called with the number of bytes left; returns the example slides as HTML, empty for none.
        predictions: one row per slide; as many are shown as fit into 0.8 MB.
        facts: what was evaluated: model, data, settings, versions.
        subgroups: scores by site, scanner, ...
        given: how a served model answered these slides.
        groups: which groups were scored; empty if the model gives no answer for groups.
    """
    of_patches, of_groups = (
        {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}
        for prefix in (PATCH, GROUP)
    )
    of_slides = {key: value for key, value in metrics.items() if not key.startswith((PATCH, GROUP))}
    values = {
        "title": title,
        "result": result_sentence(slides, metrics, null),
        "answered": answer_sentence(len(predictions), metrics, calibration),
        "calibrated": ece_sentence(metrics, raw_ece, calibration),
        "slide_metrics": _metric_rows({**of_slides, **null}),
        "slide_classes": _class_rows(of_slides, classes),
        "patch_metrics": _metric_rows(of_patches),
        "patch_classes": _class_rows(of_patches, classes),
        "groups": groups,
        "given": given,
        "smallest": smallest_subgroup(subgroups),
        "subgroups": list(map(_subgroup_row, subgroups)),
        "group_metrics": _metric_rows(of_groups),
        "group_classes": _class_rows(of_groups, classes),
        "figures": {caption: data_address(png, "png") for caption, png in figures.items()},
        "evidence": evidence,
        "aggregations": _aggregation_rows(evidence),
        "left_out": [_subgroup_row(Subgroup.model_validate(one))[1:] for one in evidence.get("left_out", ())],
        "selection": selection_sentence(evidence.get("study") or {}),
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
    """Returns the result: macro-F1 beside the null models, and whether its interval excludes them."""
    model = metrics.get("macro_f1")
    rivals = {key: null[key] for key in NULL_MODELS if key in null and math.isfinite(null[key].value)}
    if model is None or not math.isfinite(model.value) or not rivals:
        return f"{slides}: there is no null model to compare with, so these numbers do not show that the model learned anything."
    reached = ", ".join(f"{NULL_MODELS[key]} {rival}" for key, rival in rivals.items())
    start = f"On {slides} the model reaches a macro-F1 of {model} (95 % interval); null models: {reached}. "
    if not (math.isfinite(model.low) and math.isfinite(model.high)):
        return (
            start + "There are too few independent slides for an interval, so model and null models cannot be compared."
        )
    best = max(rival.value for rival in rivals.values())
    if model.low > best:  # the gate's rule
        return start + "The model is better than the null models: its whole interval lies above them."
    if model.high < best:
        return start + "The model is WORSE than a null model: its whole interval lies below it."
    return start + "The interval includes a null model, so these slides do not show that the model is better."


def answer_sentence(slides: int, metrics: Mapping[str, Estimate], calibration: Calibration) -> str:
    """Returns what the model's abstention threshold means on these slides."""
    coverage, accuracy = metrics.get("coverage"), metrics.get("answered_accuracy")
    if coverage is None or accuracy is None or (calibration.threshold <= 0 and coverage.value == 1):
        return "The model never abstains: it has no confidence threshold."
    if calibration.threshold > 1:
        return (
            f"The model abstains on every slide: out of fold, no threshold reached a precision of {calibration.target_precision:.0%}."
        )  # fmt: skip
    answered = round(coverage.value * slides)
    correct = f", {round(accuracy.value * answered)} of them correctly" if answered else ""
    rule = (
        f"The model abstains (“not sure”) if its confidence is below {calibration.threshold:.2f}: out of fold, at least "
        f"{calibration.target_precision:.0%} of the predictions above that were correct. It also abstains if the mask "
        "is implausible or the slide unlike the training slides."
        if calibration.threshold > 0
        else "The model abstains (“not sure”) only if the mask is implausible or the slide unlike the training slides."
    )
    return f"{rule} Here it answers {answered} of {slides} slides{correct}."


def ece_sentence(metrics: Mapping[str, Estimate], raw_ece: Estimate, calibration: Calibration) -> str:
    """Returns the effect of the temperature on the calibration error on these slides."""
    if calibration.temperature == 1 or "ece" not in metrics:
        return "The model's confidence comes straight from the networks (no temperature was fitted)."
    return (
        f"Calibration error (ECE) on these slides: {raw_ece} before, {metrics['ece']} after temperature scaling "
        f"(T = {calibration.temperature:.2f}, fitted out of fold)."
    )


class Cell(NamedTuple):
    """A cell of a table; `kind` is its CSS class, `number` or `note`."""

    text: str
    kind: str = ""


Row = tuple[Cell, ...]


def _metric_rows(metrics: Mapping[str, Estimate]) -> list[Row]:
    return [
        (
            Cell(METRICS.get(key, (key, ""))[0]),
            *_estimate_cells(estimate),
            Cell(METRICS.get(key, ("", ""))[1], "note"),
        )
        for key, estimate in metrics.items()
        if key.partition("/")[0] not in PER_CLASS or "/" not in key
    ]


def _class_rows(metrics: Mapping[str, Estimate], classes: Sequence[str]) -> list[Row]:
    measured = {name: [metrics.get(f"{kind}/{name}") for kind in PER_CLASS] for name in classes}
    return [
        (Cell(name), *(Cell("" if estimate is None else str(estimate), "number") for estimate in estimates))
        for name, estimates in measured.items()
        if any(estimates)
    ]


def _subgroup_row(one: Subgroup) -> Row:
    scores = [Cell(str(one.metrics[name]), "number") for name in SUBGROUP_METRICS] if one.metrics else [
        Cell(one.too_few, "note"), Cell(""), Cell("")
    ]  # fmt: skip
    counts = (Cell(str(number), "number") for number in (one.slides, one.groups, one.classes))
    return (Cell(one.column), Cell(one.value), *counts, *scores)


def _estimate_cells(estimate: Estimate) -> Row:
    interval = f"{estimate.low:.3f} – {estimate.high:.3f}" if math.isfinite(estimate.low + estimate.high) else "none"
    value = f"{estimate.value:.3f}" if math.isfinite(estimate.value) else "undefined"
    return Cell(value, "number"), Cell(interval, "number")


def _aggregation_rows(evidence: Mapping[str, Any]) -> list[Row]:
    rows = []
    for entry in evidence.get("aggregations", ()):
        name = entry["name"] + (" (chosen)" if entry["chosen"] else "")
        difference = (
            (str(Estimate.from_dict(entry["difference"])), entry["against"]) if entry["difference"] else ("", "")
        )
        rows.append(tuple(map(Cell, (name, str(Estimate.from_dict(entry["macro_f1"])), *difference))))
    return rows


def selection_sentence(study: Mapping[str, Any]) -> str:
    """Returns how the settings were chosen, and what the choice is worth on slides that did not take part in it."""
    if not study:
        return ""
    nested = study.get("nested")
    worth = f" {nested_sentence(Estimate.from_dict(nested))}" if nested else ""
    return (
        f"The settings were chosen from {study['trials']} trials on these folds, so the out-of-fold scores are optimistic: the "
        f"chosen trial reached {study['slide_macro_f1']:.3f}.{worth} The hold-out took no part in the choice."
    )


def nested_sentence(nested: Estimate) -> str:
    """What the choice of a trial is worth on slides that took no part in it, as a sentence."""
    return f"Nested estimate (for each fold, the trial is chosen on the other folds): macro-F1 {nested}."


def _calibration_text(calibration: Calibration) -> str:
    before, after = calibration.ece_before, calibration.ece_after
    text = f"Temperature {calibration.temperature:.2f}."
    if before is not None and after is not None:
        text += f" Calibration error (ECE) {before:.3f} before, {after:.3f} after temperature scaling (cross-fitted)."
    if calibration.precision is not None and calibration.coverage is not None:
        text += (
            f" At the threshold {calibration.threshold:.2f} the model answers {calibration.coverage:.0%} of these slides, and "
            f"{calibration.precision:.0%} of those predictions are correct (optimistic: the threshold was chosen on them)."
        )
    return text


def _prediction_rows(predictions: pd.DataFrame) -> list[Row]:
    """As many rows as fit into TABLE_BYTES."""
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
    """Size of a cell in the page, in bytes."""
    return len(escape(cell.text).encode()) + len("<td></td>") + (len(f' class="{cell.kind}"') if cell.kind else 0)


def _value_cell(value: object) -> Cell:
    if isinstance(value, float):
        return Cell(f"{value:.3f}" if math.isfinite(value) else "", "number")
    return Cell("" if value is None or value is pd.NA else str(value))
