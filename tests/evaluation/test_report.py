import math
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from pydantic import ValidationError

from doctogres.evaluation.metrics import Estimate
from doctogres.evaluation.report import null_verdict, render_report
from doctogres.settings import EvaluateSettings

PNG = b"\x89PNG\r\n\x1a\n"
GOOD = Estimate(0.661, 0.489, 0.783)
NULL = {"majority/macro_f1": Estimate(0.1, 0.08, 0.12), "chance/macro_f1": Estimate(0.25, 0.2, 0.3)}
HOSTILE = "<script>alert('1')</script>\" onerror=\"x' & </table>"
VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Collects tags, attributes and visible text; complains about tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.visible = ""
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.visible += data


def report(text: str = "plain", **changes: object) -> str:
    given: dict = {
        "title": text,
        "summary": text,
        "metrics": {"macro_f1": GOOD, "accuracy": GOOD, f"f1/{text}": GOOD, f"recall/{text}": GOOD},
        "null": NULL,
        "figures": {text: PNG},
        "worst": [(text, PNG)],
        "predictions": pd.DataFrame({"slide_id": [text], text: [0.25]}),
        "facts": {text: text},
    }
    return render_report(**given | changes)


def test_hostile_names_are_shown_and_do_nothing() -> None:
    page = Reader(report(HOSTILE))
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.visible.count(HOSTILE) >= 9


def test_nothing_is_fetched_from_elsewhere() -> None:
    page = report()
    assert not re.search(r"(src|href)=\"(?!data:image/png;base64,)", page)
    assert "http:" not in page
    assert "https:" not in page
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_the_first_words_after_the_summary_weigh_the_model_against_the_null() -> None:
    visible = Reader(report()).visible
    verdict = null_verdict({"macro_f1": GOOD}, NULL)
    assert verdict in visible
    assert visible.index(verdict) < visible.index("Metrics")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (GOOD, "do not overlap: the model is better"),
        (Estimate(0.31, 0.25, 0.4), "overlap: these slides do not show"),
        (Estimate(0.1, 0.05, 0.15), "do not overlap: the model is WORSE"),
        (Estimate(0.9, math.nan, math.nan), "too few independent slides"),
        (Estimate(math.nan, math.nan, math.nan), "no null model"),
    ],
)
def test_the_verdict(model: Estimate, words: str) -> None:
    assert words in null_verdict({"macro_f1": model}, NULL)


def test_the_rival_is_the_better_null_model() -> None:
    assert "guessing" in null_verdict({"macro_f1": GOOD}, NULL)
    swapped = {"majority/macro_f1": NULL["chance/macro_f1"], "chance/macro_f1": NULL["majority/macro_f1"]}
    assert "commonest" in null_verdict({"macro_f1": GOOD}, swapped)


def test_without_null_models_the_report_says_so() -> None:
    assert "There is no null model" in Reader(report(null={})).visible


def test_undefined_metrics_are_words_not_nan() -> None:
    undefined = Estimate(math.nan, math.nan, math.nan)
    visible = Reader(report(metrics={"macro_f1": GOOD, "macro_auroc": undefined, "precision/a": undefined})).visible
    assert "undefined" in visible
    assert "nan" not in visible.lower()


def test_a_class_named_like_a_metric_or_with_a_slash_keeps_its_row() -> None:
    visible = Reader(report(metrics={"macro_f1": GOOD, "f1/grade 1/2": GOOD, "recall/accuracy": GOOD})).visible
    assert "grade 1/2" in visible
    assert "accuracy" in visible


def test_empty_parts_leave_no_headings() -> None:
    visible = Reader(report(figures={}, worst=[], facts={}, predictions=pd.DataFrame())).visible
    for heading in ("Figures", "The worst slides", "Predictions", "What was evaluated"):
        assert heading not in visible


def test_a_long_table_says_that_it_is_cut() -> None:
    visible = Reader(report(predictions=pd.DataFrame({"slide_id": [f"img_{i:05}" for i in range(2500)]}))).visible
    assert "2500 slides" in visible
    assert "first 2000" in visible
    assert "img_01999" in visible
    assert "img_02000" not in visible


def test_missing_values_in_the_predictions_are_blank() -> None:
    table = pd.DataFrame({"slide_id": ["a", "b"], "label": ["x", None], "p": [0.5, math.nan]})
    visible = Reader(report(predictions=table)).visible
    assert "nan" not in visible.lower()
    assert "None" not in visible


def test_settings_refuse_what_is_misspelt_or_out_of_range() -> None:
    assert all(field.description for field in EvaluateSettings.model_fields.values())
    for wrong in ({"resample": 500}, {"resamples": 99}, {"resamples": 100_001}):
        with pytest.raises(ValidationError):
            EvaluateSettings.model_validate(wrong)
    with pytest.raises(ValidationError):
        EvaluateSettings().resamples = 500  # type: ignore[misc]
