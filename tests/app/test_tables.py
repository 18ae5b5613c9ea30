"""The slides as a table, as CSV and as a sheet for printing."""

import base64
import io
import re
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from doctogres.app.cases import Case, Result
from doctogres.app.tables import csv_file, sheet_html, table_html
from doctogres.app.uploads import Pair, Upload
from doctogres.evaluation.predictions import Predictions
from doctogres.evaluation.unlabelled import ANSWERED, readable
from doctogres.slides.images import encode_jpeg, read_rgb
from tests.app.test_findings import ANSWER, HOSTILE, RGB, SHARES, UNSURE

NOON = datetime(2026, 11, 29, 12, 5)
RESULT = Result(NOON, ANSWER, encode_jpeg(RGB, 90))


def pair(name: str, *, mask: bool = True, problem: str = "") -> Pair:
    return Pair(
        name, Upload(f"{name}.png", b"", name), Upload(f"{name}_mask.png", b"", name) if mask else None, problem
    )


SURE = Case(pair("S1"), RESULT)
NOT_SURE = Case(pair("S2", mask=False), Result(NOON, ANSWER | UNSURE | {"labels_valid": False}, RESULT.overlay))
REFUSED = Case(pair("S3"), Result(NOON, {}, refusal="S3.png is truncated"))
WAITING = Case(pair("S4"))
CASES = [SURE, NOT_SURE, REFUSED, WAITING]


def rows_of(html: str) -> list[list[str]]:
    """The texts of a table's cells."""
    (body,) = re.findall(r"<tbody>(.*?)</tbody>", html, re.DOTALL)
    return [
        [re.sub("<.*?>", "", cell).strip() for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in re.findall(r"<tr.*?</tr>", body)
    ]


def test_a_row_says_sure_or_not_sure_or_refused() -> None:
    assert rows_of(table_html(CASES, pressable=True)) == [
        ["S1.png", "S1_mask.png", "✓ Sure", "HER2(+)", "60 %", ""],
        ["S2.png", "none", "? Not sure", "HER2(+)", "60 %", "the confidence 0.60 is below 0.70"],
        ["S3.png", "S3_mask.png", "✕ Refused", "", "", "S3.png is truncated"],
        ["S4.png", "S4_mask.png", "… Waiting", "", "", ""],
    ]


def test_the_table_has_headings_and_buttons_only_where_they_work() -> None:
    pressable = table_html(CASES, pressable=True)
    assert pressable.count('scope="col"') == 6
    assert pressable.count('scope="row"') == len(CASES)
    assert pressable.count("<button") == 6 + len(CASES)
    assert "<button" not in table_html(CASES, pressable=False)


def test_the_file_has_the_columns_of_the_stage_predict() -> None:
    table = pd.read_csv(io.BytesIO(csv_file(CASES)), keep_default_na=False)
    one = pd.DataFrame(
        [{"slide_id": "", "label": "", "outcome": ANSWERED, "reason": "", "n_patches": 0, "confidence": 0.0,
          "abstained": False, "mask_source": "", "labels": "", "novelty": 0.0}]
    )  # fmt: skip
    expected = readable(Predictions(one, tuple(SHARES), np.zeros((1, 3))), "m")
    assert list(table) == list(expected)
    assert table["slide_id"].tolist() == ["S1", "S2", "S3", "S4"]
    assert table["label"].tolist() == ["HER2(+)", "HER2(+)", "", ""]
    assert table["sure"].tolist() == [True, False, False, False]
    assert table["p_Luminal B"].tolist() == ["0.3", "0.3", "", ""]
    assert table["labels"].tolist() == ["HER2(+); Luminal A", "", "", ""]
    assert table["reason"].tolist() == ["", UNSURE["reasons"][0], "S3.png is truncated", ""]
    assert table["model"].tolist() == ["doctogres/3", "doctogres/3", "", ""]


def test_the_file_is_made_without_any_answer_and_holds_no_formula() -> None:
    evil = Case(Pair("=1+1", None, None, "@a"))
    table = pd.read_csv(io.BytesIO(csv_file([evil])), keep_default_na=False)
    assert [table["slide_id"][0], table["reason"][0]] == ["'=1+1", "'@a"]


def test_the_file_has_the_classes_of_every_model_that_answered() -> None:
    probabilities = {next(iter(SHARES)): 0.75, "another": 0.25}
    later = Case(pair("S5"), Result(NOON, ANSWER | {"probabilities": probabilities}))
    table = pd.read_csv(io.BytesIO(csv_file([SURE, later])))
    shares = table.filter(regex="^p_|^probability")
    assert shares.notna().sum(axis=1).tolist() == [len(SHARES), 2]
    assert len(shares.columns) == len(SHARES) + 1


def test_the_sheet_has_everything_of_every_slide() -> None:
    sheet = sheet_html(CASES)
    assert [row[2] for row in rows_of(sheet)] == ["Sure", "Not sure", "Refused", "Waiting"]
    first, second, third, _ = re.findall(r"<article.*?</article>", sheet, re.DOTALL)
    for words in (
        "S1.png: HER2(+)",
        "S1_mask.png",
        "HER2(+) 60 %, Luminal B 30 %",
        "doctogres/3, 29 November 2026, 12:05",
    ):
        assert words in first
    assert "S2.png: Not sure (most probable: HER2(+))" in second
    assert "Probably one of" in first
    assert "Probably one of" not in second
    assert "S3.png is truncated" in third
    assert "4 slides: 1 sure, 1 not sure, 1 refused, 1 waiting" in sheet
    (overlay,) = re.findall(r'data:image/jpeg;base64,([^"]+)" alt="the slide S1.png with ', first)
    assert read_rgb(base64.b64decode(overlay), name="overlay").shape == RGB.shape


@pytest.mark.parametrize("render", [lambda cases: table_html(cases, pressable=True), sheet_html])
def test_no_name_is_read_as_html(render) -> None:
    files = Upload(HOSTILE, b"", HOSTILE)
    answer = ANSWER | dict.fromkeys(("label", "model_version"), HOSTILE) | {"probabilities": {HOSTILE: 0.6}}
    cases = [
        Case(Pair(HOSTILE, files, files), Result(NOON, answer | {"warnings": [HOSTILE]}, RESULT.overlay)),
        Case(Pair(HOSTILE, files, files, HOSTILE)),
    ]
    html = str(render(cases))
    assert "<img src=x" not in html
    assert 'key="<' not in html
    assert html.count("&lt;img src=x") > 5
