"""The evaluation as one self-contained HTML file: no script, no outside address, everything from the data escaped."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any, Final

import pandas as pd

from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.metrics import PER_CLASS
from doctogres.evaluation.null_models import NULL_MODELS
from doctogres.model.temperature import Calibration
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
    "coverage": ("Coverage", "share of slides at or above the model's threshold: the others are marked as not sure"),
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
    head = [
        f"<h1>{escape(result_sentence(slides, metrics, null))}</h1>",
        f"<p>{escape(answer_sentence(len(predictions), metrics, calibration))}</p>",
        _section(
            "Slides: the answers a person gets",
            _metrics_table({**of_slides, **null}) + _class_table(of_slides, classes),
        ),
        _section("Patches: each region on its own", _metrics_table(of_patches) + _class_table(of_patches, classes)),
        _section(
            "Figures",
            f"<p>{escape(ece_sentence(metrics, raw_ece, calibration))}</p>{_figures(figures.items())}"
            if figures
            else "",
        ),
        _section("Before this evaluation: how the networks did out of fold", _out_of_fold(evidence, calibration)),
    ]
    tail = [
        _section("Predictions", _predictions_table(predictions)),
        _section("What was evaluated", _table(("", ""), [(_cell(name), _cell(fact)) for name, fact in facts.items()])),
    ]
    left = PAGE_BYTES - len(_page(title, head + tail).encode())
    return _page(title, [*head, _section("Slides to look at", gallery(left)), *tail])


def _page(title: str, parts: Sequence[str]) -> str:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    style = files("doctogres.report").joinpath("report.css").read_text("utf-8")
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


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
    if coverage is None or accuracy is None or calibration.threshold <= 0:
        return "The model answers every slide: it has no threshold under which it says that it is not sure."
    if calibration.threshold > 1:
        return (
            f"Every slide is marked as not sure: out of fold, no confidence reached {calibration.target_precision:.0%} right answers."
        )  # fmt: skip
    answered = round(coverage.value * slides)
    right = f"; {round(accuracy.value * answered)} of these {answered} are right" if answered else ""
    return (
        f"A slide whose confidence is under {calibration.threshold:.2f} is marked as not sure: out of fold, at least "
        f"{calibration.target_precision:.0%} of the answers above that were right. Here {answered} of {slides} slides "
        f"are answered{right}."
    )


def ece_sentence(metrics: Mapping[str, Estimate], raw_ece: Estimate, calibration: Calibration) -> str:
    """Returns what the temperature did to the calibration error on these slides."""
    if calibration.temperature == 1 or "ece" not in metrics:
        return "The model's confidence is as the networks state it (no temperature was fitted)."
    return (
        f"Calibration error on these slides: {raw_ece} as the networks state it, {metrics['ece']} after the temperature "
        f"{calibration.temperature:.2f} that was fitted out of fold."
    )


def _metrics_table(metrics: Mapping[str, Estimate]) -> str:
    rows = [
        (
            _cell(METRICS.get(key, (key, ""))[0]),
            *_estimate_cells(one),
            _cell(METRICS.get(key, ("", ""))[1], kind="note"),
        )
        for key, one in metrics.items()
        if key.partition("/")[0] not in PER_CLASS or "/" not in key
    ]
    return _table(("Metric", "Value", "95 % interval", "What it says"), rows)


def _class_table(metrics: Mapping[str, Estimate], classes: Sequence[str]) -> str:
    rows = []
    for name in classes:
        estimates = [metrics.get(f"{kind}/{name}") for kind in PER_CLASS]
        if any(estimates):
            rows.append((_cell(name), *(_cell("" if one is None else str(one), kind="number") for one in estimates)))
    table = _table(("Class", "F1", "Recall (share found)", "Precision (share right)"), rows)
    return f"<h3>By class</h3>{table}" if rows else ""


def _estimate_cells(estimate: Estimate) -> tuple[str, str]:
    interval = f"{estimate.low:.3f} – {estimate.high:.3f}" if math.isfinite(estimate.low + estimate.high) else "none"
    value = f"{estimate.value:.3f}" if math.isfinite(estimate.value) else "undefined"
    return _cell(value, kind="number"), _cell(interval, kind="number")


def _out_of_fold(evidence: Mapping[str, Any], calibration: Calibration) -> str:
    if not evidence:
        return "<p>The model carries no out-of-fold evidence.</p>"
    again = f", {evidence['repeats']} times with new folds" if evidence["repeats"] > 1 else ""
    start = (
        f"{evidence['slides']} training slides, {evidence['folds']} folds left out in turn{again}. {evidence['note']}"
    )
    rows = []
    for way in evidence["aggregations"]:
        difference = Estimate.from_dict(way["difference"]) if way["difference"] else None
        cells = [way["name"] + (" (chosen)" if way["chosen"] else ""), str(Estimate.from_dict(way["macro_f1"]))]
        cells += [str(difference), way["against"]] if difference else ["", ""]
        rows.append(tuple(_cell(text) for text in cells))
    table = _table(("From patches to the slide", "Macro-F1", "Difference", "Against"), rows)
    explained = "Differences are paired: both ways on the same resampled slides. An interval that includes 0 shows no difference."
    cost = f" Eight flips and turns took {evidence['tta_cost']:.1f} times as long." if "tta_cost" in evidence else ""
    return (
        f"<p>{escape(start)}</p>{table}<p>{escape(explained + cost)}</p><p>{escape(_calibration_text(calibration))}</p>"
    )


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


def _predictions_table(predictions: pd.DataFrame) -> str:
    if predictions.empty:
        return ""
    rows: list[tuple[str, ...]] = []
    left = TABLE_BYTES
    for row in predictions.itertuples(index=False, name=None):
        cells = tuple(_value_cell(value) for value in row)
        left -= sum(len(cell.encode()) for cell in cells)
        if left < 0:
            break
        rows.append(cells)
    shown = f"; the first {len(rows)} are shown, predictions.csv holds all" if len(rows) < len(predictions) else ""
    table = _table([str(column) for column in predictions.columns], rows, tall=True)
    return f"<details><summary>{len(predictions)} slides{shown}</summary>{table}</details>"


def _value_cell(value: object) -> str:
    if isinstance(value, float):
        return _cell(f"{value:.3f}" if math.isfinite(value) else "", kind="number")
    return _cell("" if value is None or value is pd.NA else str(value))


def _figures(pictures: Iterable[tuple[str, bytes]]) -> str:
    figures = [
        f'<figure><img alt="{escape(caption)}" src="{data_address(png, "png")}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, png in pictures
    ]
    return f'<div class="grid">{"".join(figures)}</div>'


def _section(heading: str, body: str) -> str:
    return f"<h2>{escape(heading)}</h2>\n{body}" if body else ""


def _table(headers: Sequence[str], rows: Sequence[tuple[str, ...]], *, tall: bool = False) -> str:
    """Returns a table of finished cells; a column is headed to the right where its first cell is a number."""
    if not rows:
        return ""
    numbers = ["number" in cell.partition(">")[0] for cell in rows[0]]
    cells = (
        f'<th class="number">{escape(header)}</th>' if number else f"<th>{escape(header)}</th>"
        for header, number in zip(headers, numbers, strict=True)
    )
    head = f"<thead><tr>{''.join(cells)}</tr></thead>" if any(headers) else ""
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<div class="scroll{" tall" if tall else ""}"><table>{head}<tbody>{body}</tbody></table></div>'


def _cell(text: str, *, kind: str = "") -> str:
    return f'<td class="{kind}">{escape(text)}</td>' if kind else f"<td>{escape(text)}</td>"
