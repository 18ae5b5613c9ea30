import math
import re
from html.parser import HTMLParser
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from doctogres.evaluation.bootstrap import Estimate
from doctogres.model.temperature import Calibration
from doctogres.report.report import answer_sentence, ece_sentence, render_report, result_sentence
from doctogres.settings import EvaluateSettings

PNG = b"\x89PNG\r\n\x1a\n"
GOOD = Estimate(0.661, 0.489, 0.783)
NULL = {"majority/macro_f1": Estimate(0.1, 0.08, 0.12), "chance/macro_f1": Estimate(0.25, 0.2, 0.3)}
CALIBRATION = Calibration.none(0.9).model_copy(
    update={
        "temperature": 1.7,
        "threshold": 0.6,
        "coverage": 0.4,
        "precision": 0.95,
        "ece_before": 0.2,
        "ece_after": 0.1,
    }
)
HOSTILE = "<script>alert('1')</script>\" onerror=\"x' & </table>"
VOID = {"meta", "img", "input"}


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
    patches = {"patch/macro_f1": NULL["chance/macro_f1"]}
    way = {"name": text, "chosen": True, "macro_f1": GOOD.to_dict(), "against": None, "difference": None}
    other = way | {"chosen": False, "against": text, "difference": Estimate(0.02, -0.01, 0.05).to_dict()}
    given: dict[str, Any] = {
        "title": text,
        "slides": f"24 {text} slides",
        "classes": [text],
        "metrics": {"macro_f1": GOOD, "accuracy": GOOD, f"f1/{text}": GOOD, f"recall/{text}": GOOD} | patches,
        "null": NULL,
        "raw_ece": GOOD,
        "calibration": CALIBRATION,
        "evidence": {"slides": 90, "folds": 5, "repeats": 1, "note": text, "aggregations": [way, other], "tta_cost": 7.5},
        "figures": {text: PNG},
        "gallery": lambda budget: "",
        "predictions": pd.DataFrame({"slide_id": [text], text: [0.25]}),
        "facts": {text: text},
    }  # fmt: skip
    return render_report(**given | changes)


def test_hostile_names_are_shown_and_do_nothing() -> None:
    page = Reader(report(HOSTILE))
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.visible.count(HOSTILE) >= 12


def test_nothing_is_fetched_from_elsewhere() -> None:
    page = report()
    assert not re.search(r"(src|href)=\"(?!data:image/png;base64,)", page)
    assert "http:" not in page
    assert "https:" not in page
    assert "url(" not in page
    assert "default-src 'none'" in page


def test_the_first_line_is_the_result() -> None:
    visible = Reader(report()).visible.split("body { margin")[-1]
    sentence = result_sentence("24 plain slides", {"macro_f1": GOOD}, NULL)
    assert "24 plain slides" in sentence
    assert all(str(one) in sentence for one in (GOOD, *NULL.values()))
    body = report().split("<body>")[1]
    assert Reader(body.split("</h1>")[0] + "</h1>").visible.strip() == sentence
    assert sentence in visible


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (GOOD, "better than the null models: its whole interval lies above"),
        (Estimate(0.31, 0.25, 0.4), "includes a null model, so these slides do not show"),
        (Estimate(0.1, 0.05, 0.15), "WORSE than a null model: its whole interval lies below"),
        (Estimate(0.9, math.nan, math.nan), "too few independent slides"),
        (Estimate(math.nan, math.nan, math.nan), "no null model"),
    ],
)
def test_the_result_is_weighed_against_the_better_null_model(model: Estimate, words: str) -> None:
    swapped = {"majority/macro_f1": NULL["chance/macro_f1"], "chance/macro_f1": NULL["majority/macro_f1"]}
    for null in (NULL, swapped):
        assert words in result_sentence("24 slides", {"macro_f1": model}, null)


@pytest.mark.parametrize(
    ("threshold", "coverage", "accuracy", "words"),
    [
        (0.6, 0.5, 0.75, "Here it answers 12 of 24 slides, 9 of them correctly."),
        (0.6, 0.0, math.nan, "Here it answers 0 of 24 slides."),
        (1.1, 0.0, math.nan, "abstains on every slide"),
        (0.0, 1.0, 0.5, "never abstains"),
    ],
)
def test_what_the_threshold_comes_to(threshold: float, coverage: float, accuracy: float, words: str) -> None:
    metrics = {"coverage": Estimate(coverage, 0, 1), "answered_accuracy": Estimate(accuracy, 0, 1)}
    assert words in answer_sentence(24, metrics, CALIBRATION.model_copy(update={"threshold": threshold}))


def test_the_calibration_error_is_told_before_and_after_the_temperature() -> None:
    ece = Estimate(0.1, 0.05, 0.2)
    sentence = ece_sentence({"ece": ece}, GOOD, CALIBRATION)
    assert sentence.index(str(GOOD)) < sentence.index(str(ece)) < sentence.index("1.70")
    assert "no temperature" in ece_sentence({"ece": ece}, GOOD, CALIBRATION.model_copy(update={"temperature": 1.0}))


def test_patches_have_a_table_of_their_own() -> None:
    visible = Reader(report()).visible
    slides, patches = visible.split("Patches: single regions")
    assert "0.661" in slides.split("Slides: the final predictions")[1]
    assert "0.250" in patches.split("Figures")[0]
    assert "0.661" not in patches.split("Figures")[0]


def test_the_ways_to_an_answer_are_told_with_their_paired_difference() -> None:
    visible = Reader(report("mean")).visible
    assert "mean (chosen)" in visible
    assert "0.020 [-0.010, 0.050]" in visible
    assert "7.5 times as long" in visible
    assert "no out-of-fold results" in Reader(report(evidence={})).visible


def test_the_gallery_gets_what_the_page_leaves_of_its_5_mb() -> None:
    asked: list[int] = []

    def gallery(budget: int) -> str:
        asked.append(budget)
        return "x" * budget

    page = report(gallery=gallery, figures={"large": b"0" * 1_000_000})
    assert 3_000_000 < asked[0] < 4_000_000
    assert len(page.encode()) < 5_000_000


def test_without_null_models_the_report_says_so() -> None:
    assert "there is no null model" in Reader(report(null={})).visible


def test_undefined_metrics_are_words_not_nan() -> None:
    undefined = Estimate(math.nan, math.nan, math.nan)
    visible = Reader(report(metrics={"macro_f1": GOOD, "macro_auroc": undefined, "precision/plain": undefined})).visible
    assert "undefined" in visible
    assert "nan" not in visible.lower()


def test_a_class_named_like_a_metric_or_with_a_slash_keeps_its_row() -> None:
    metrics = {"macro_f1": GOOD, "f1/grade 1/2": GOOD, "recall/accuracy": GOOD}
    visible = Reader(report(classes=["grade 1/2", "accuracy"], metrics=metrics)).visible
    assert "grade 1/2" in visible
    assert "accuracy" in visible


def test_empty_parts_leave_no_headings() -> None:
    visible = Reader(report(figures={}, metrics={"macro_f1": GOOD}, facts={}, predictions=pd.DataFrame())).visible
    for heading in ("Figures", "Patches", "Example slides", "Predictions", "What was evaluated"):
        assert heading not in visible


@pytest.mark.parametrize("columns", [1, 300])
def test_a_long_table_says_that_it_is_cut(columns: int) -> None:
    names = [f"img_{i:06}" for i in range(40_000 // columns)]
    table = pd.DataFrame({"slide_id": names} | {f"class {one}": 0.5 for one in range(columns)})
    page = report(predictions=table)
    shown = int(re.search(r"the first (\d+) are shown", page)[1])  # type: ignore[index]
    assert 10 < shown < len(names)
    assert f"<td>{names[shown - 1]}</td>" in page
    assert f"<td>{names[shown]}</td>" not in page
    assert len(page) < 1_000_000


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
