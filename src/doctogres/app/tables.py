"""The slides as a table on the page, as a CSV file, and as a sheet for printing."""

import io
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
import pandas as pd
from markupsafe import Markup

from doctogres.app.cases import Case, Status, counted
from doctogres.app.findings import overlay_text, percent
from doctogres.evaluation.predictions import Predictions
from doctogres.evaluation.unlabelled import ANSWERED, GUESSED, readable
from doctogres.pages import page, part
from doctogres.slides.images import data_address
from doctogres.spreadsheets import write_csv

TABLE = part(__package__, "table.html", "table")
SIGNS: Final = {Status.SURE: "✓", Status.NOT_SURE: "?", Status.REFUSED: "✕", Status.WAITING: "…"}
TIME: Final = "%-d %B %Y, %H:%M"


def table_html(cases: Iterable[Case], *, pressable: bool) -> Markup:
    """Renders a row per slide; `pressable` has buttons for sorting and choosing, which `table.js` listens to."""
    return TABLE(rows=[_row(case) for case in cases], pressable=pressable)


def sheet_html(cases: Sequence[Case]) -> str:
    """Renders a page on its own for A4: all slides in a table, then each with its overlay."""
    rows = [_row(case) | _details(case) for case in cases]
    return page(__package__, "sheet.html", rows=rows, count=counted(cases), printed=_written(datetime.now()))


def csv_file(cases: Sequence[Case]) -> bytes:
    """The file predictions.csv, with the columns of the stage `predict`; a slide without an answer has the reason."""
    said = [case.answer["probabilities"] if case.answer else {} for case in cases]
    # The server may have got a model of other classes between two answers.
    classes = list(dict.fromkeys(name for probabilities in said for name in probabilities))
    shares = [[probabilities.get(name, np.nan) for name in classes] for probabilities in said]
    rows = pd.DataFrame([_predicted(case) for case in cases])
    probabilities = np.array(shares, np.float64).reshape(len(cases), len(classes))
    models = [case.answer.get("model_version", "") for case in cases]
    file = io.BytesIO()
    write_csv(readable(Predictions(rows, tuple(classes), probabilities), models), file)
    return file.getvalue()


def _predicted(case: Case) -> dict[str, Any]:
    answer = case.answer
    reason = "; ".join(dict.fromkeys([*answer["reasons"], *answer["warnings"]])) if answer else case.note
    return {
        "slide_id": case.pair.slide_id,
        "label": answer.get("label", ""),
        "outcome": ANSWERED if answer else GUESSED,
        "reason": reason,
        "n_patches": answer.get("n_patches", 0),
        "confidence": answer.get("confidence", np.nan),
        "abstained": case.status != Status.SURE,
        "mask_source": answer.get("mask_source", ""),
        "labels": "; ".join(answer["labels"]) if answer and answer["labels_valid"] else "",
        "novelty": answer.get("novelty", np.nan),
    }


def _row(case: Case) -> dict[str, Any]:
    answer, pair = case.answer, case.pair
    return {
        "key": pair.key,
        "slide": pair.slide.name if pair.slide else "none",
        "mask": pair.mask.name if pair.mask else "",
        "status": case.status,
        "style": case.status.name.lower(),
        "sign": SIGNS[case.status],
        "label": answer.get("label", ""),
        "share": percent(answer["confidence"]) if answer else "",
        "order": f"{answer['confidence']:.4f}" if answer else "",
        "note": case.note,
    }


def _details(case: Case) -> dict[str, Any]:
    answer, result = case.answer, case.result
    if not answer or not result:
        return {"headline": case.status, "overlay": "", "shares": "", "labels": "", "model": ""}
    shares = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
    sure = case.status == Status.SURE
    return {
        "headline": answer["label"] if sure else f"Not sure (most probable: {answer['label']})",
        "overlay": data_address(result.overlay, "jpeg"),
        "alt": overlay_text(answer, case.pair.title),
        "shares": ", ".join(f"{name} {percent(share)}" for name, share in shares),
        "labels": ", ".join(answer["labels"]) if answer["labels_valid"] else "",
        "model": answer["model_version"],
        "time": _written(result.time),
    }


def _written(time: datetime) -> str:
    return time.strftime(TIME)
