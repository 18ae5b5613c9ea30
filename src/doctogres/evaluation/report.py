"""The evaluation as one self-contained HTML file: no script, no outside address, everything from the data escaped."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Final

import pandas as pd

from doctogres.evaluation.bootstrap import Estimate

PREDICTION_ROWS: Final = 2000

NAMES: Final = {
    "macro_f1": "Macro-F1",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_auroc": "Macro AUROC",
    "log_loss": "Log loss (less is better)",
    "brier": "Brier score (less is better)",
    "ece": "Calibration error (less is better)",
    "majority/macro_f1": "Macro-F1, always the commonest class",
    "chance/macro_f1": "Macro-F1, guessing by class shares",
}
NULL_MODELS: Final = {
    "majority/macro_f1": "always answering the commonest training class",
    "chance/macro_f1": "guessing by the training part's class shares",
}
PER_CLASS: Final = ("f1", "recall", "precision")

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #5b6670; --line: #d9dee3; --page: #ffffff; --card: #f5f7f9;
  --accent: #0067a3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaee; --soft: #a3adb7; --line: #3a424a; --page: #15191d;
  --card: #1f252b; --accent: #6cb8ea; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 68rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .3rem 0; } h2 { font-size: 1.2rem; margin: 2rem 0 .6rem; }
p.verdict { padding: .8rem 1rem; background: var(--card); border-left: 4px solid var(--accent); border-radius: 4px; }
p.note, figcaption { color: var(--soft); font-size: .9rem; }
.scroll { overflow-x: auto; } .tall { max-height: 32rem; overflow-y: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
figure { margin: 0; } img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
summary { cursor: pointer; color: var(--accent); }
@media print { .tall { max-height: none; } }
"""


def render_report(
    *,
    title: str,
    summary: str,
    metrics: Mapping[str, Estimate],
    null: Mapping[str, Estimate],
    figures: Mapping[str, bytes],
    worst: Sequence[tuple[str, bytes]],
    predictions: pd.DataFrame,
    facts: Mapping[str, str],
) -> str:
    """Returns the report as one HTML document; the first paragraph weighs the model against the null models.

    Args:
        title: heading.
        summary: a few words of plain text on what was evaluated.
        metrics: from `metrics.slide_metrics`; `<kind>/<class>` keys make the per-class table.
        null: from `metrics.null_metrics`.
        figures: caption -> PNG.
        worst: (caption, PNG) of the slides the model got most wrong, worst first.
        predictions: a row per slide; the first 2000 are shown.
        facts: what ran: model, data, settings, versions.
    """
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(summary)}</p>" if summary else "",
        f'<p class="verdict">{escape(null_verdict(metrics, null))}</p>',
        _section("Metrics", _metrics_table(metrics, null)),
        _section("By class", _class_table(metrics)),
        _section("Figures", _gallery(figures.items())),
        _section("The worst slides", _gallery(worst)),
        _section("Predictions", _predictions_table(predictions)),
        _section("What was evaluated", _table(("", ""), [(_cell(name), _cell(fact)) for name, fact in facts.items()])),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def null_verdict(metrics: Mapping[str, Estimate], null: Mapping[str, Estimate]) -> str:
    """Returns the sentence that says how the model's macro-F1 compares with the better null model's."""
    model = metrics.get("macro_f1")
    rivals = {key: null[key] for key in NULL_MODELS if key in null and math.isfinite(null[key].value)}
    if model is None or not math.isfinite(model.value) or not rivals:
        return "There is no null model to compare with, so these numbers do not show that the model learned anything."
    best = max(rivals, key=lambda key: rivals[key].value)
    rival = rivals[best]
    start = f"The model reaches a macro-F1 of {model}; the better null model, {NULL_MODELS[best]}, reaches {rival}. "
    if not all(math.isfinite(edge) for edge in (model.low, model.high, rival.low, rival.high)):
        return start + "There are too few independent slides for intervals, so the two cannot be told apart."
    if model.low > rival.high:
        return start + "The 95 % intervals do not overlap: the model is better than the null model."
    if model.high < rival.low:
        return start + "The 95 % intervals do not overlap: the model is WORSE than the null model."
    return start + "The 95 % intervals overlap: these slides do not show that the model is better than the null model."


def _metrics_table(metrics: Mapping[str, Estimate], null: Mapping[str, Estimate]) -> str:
    whole = {key: one for key, one in metrics.items() if key.partition("/")[0] not in PER_CLASS or "/" not in key}
    rows = [(_cell(NAMES.get(key, key)), *_estimate_cells(one)) for key, one in [*whole.items(), *null.items()]]
    return _table(("Metric", "Value", "95 % interval"), rows)


def _class_table(metrics: Mapping[str, Estimate]) -> str:
    names = dict.fromkeys(key.partition("/")[2] for key in metrics if key.partition("/")[0] in PER_CLASS and "/" in key)
    rows = []
    for name in names:
        estimates = (metrics.get(f"{kind}/{name}") for kind in PER_CLASS)
        rows.append((_cell(name), *(_cell("" if one is None else str(one), number=True) for one in estimates)))
    return _table(("Class", "F1", "Recall", "Precision"), rows) if rows else ""


def _estimate_cells(estimate: Estimate) -> tuple[str, str]:
    interval = f"{estimate.low:.3f} – {estimate.high:.3f}" if math.isfinite(estimate.low + estimate.high) else "none"
    value = f"{estimate.value:.3f}" if math.isfinite(estimate.value) else "undefined"
    return _cell(value, number=True), _cell(interval, number=True)


def _predictions_table(predictions: pd.DataFrame) -> str:
    if predictions.empty:
        return ""
    shown = predictions.head(PREDICTION_ROWS)
    headers = [str(column) for column in predictions.columns]
    rows = [tuple(_value_cell(value) for value in row) for row in shown.itertuples(index=False, name=None)]
    note = "" if len(shown) == len(predictions) else f'<p class="note">The first {len(shown)} are shown.</p>'
    table = _table(headers, rows, tall=True)
    return f"<details><summary>{len(predictions)} slides</summary>{note}{table}</details>"


def _value_cell(value: object) -> str:
    if isinstance(value, float):
        return _cell(f"{value:.3f}" if math.isfinite(value) else "", number=True)
    return _cell("" if value is None or value is pd.NA else str(value))


def _gallery(pictures: Iterable[tuple[str, bytes]]) -> str:
    figures = [
        f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{base64.b64encode(png).decode("ascii")}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, png in pictures
    ]
    return f'<div class="grid">{"".join(figures)}</div>' if figures else ""


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


def _cell(text: str, *, number: bool = False) -> str:
    return f'<td class="number">{escape(text)}</td>' if number else f"<td>{escape(text)}</td>"
