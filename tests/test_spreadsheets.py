"""No CSV that is written holds what a spreadsheet would run, and what was written is read back."""

import csv
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doctogres.spreadsheets import as_text, as_written, has_controls, is_formula, read_back, write_csv

SOURCE = Path(__file__).parents[1] / "src" / "doctogres"
TEXTS = st.text(st.sampled_from("=+-@'\"\t\r 19aé\uff1d,;"), max_size=8)


@pytest.mark.parametrize(
    "text", ["=1+1", "+a", "-a", "@SUM(A1)", "\t=1", "\r=1", " =1", "\uff1dA1", "-2+3", "=", "--a", "+-1"]
)
def test_a_formula_is_found(text):
    assert is_formula(text)
    assert as_text(text) == f"'{text}"


@pytest.mark.parametrize("text", ["", "a", "HER2-", "a=1", "-", "++", "-1", "+1.5", "-0,5", "1e-3", "'a", "img_0001"])
def test_what_does_nothing_stays_as_it_is(text):
    assert not is_formula(text)
    assert as_text(text) == text == as_written(text)


def test_control_characters_are_found():
    assert has_controls("a\nb")
    assert has_controls("\x1b[2J")
    assert has_controls("a\x9b")
    assert not has_controls("癌 é\u200b")


@given(TEXTS)
def test_a_cell_is_read_back(text):
    assert as_written(as_text(text)) == text
    assert not is_formula(as_text(text))


def test_a_table_holds_no_formula_and_is_read_back(tmp_path):
    table = pd.DataFrame(
        {"slide_id": ["=1", "'=2", "a", None], "p_=x": [-1.5, 2.0, 3.0, 4.0], "=sure": [True, False, True, True]}
    )
    write_csv(table, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not any(map(is_formula, cells))
    assert "-1.5" in cells
    pd.testing.assert_frame_equal(read_back(pd.read_csv(tmp_path / "table.csv")), table)


def test_every_csv_for_people_is_written_here():
    writers = {
        path.name
        for path in SOURCE.rglob("*.py")
        if re.search(r"\.to_csv\((?!index=False\)|\))|csv\.(writer|DictWriter)", path.read_text("utf-8"))
    }
    # the demo cohort; and what a person wrote into cohort.csv, for our own reader
    assert writers == {"spreadsheets.py", "cohort.py", "listed_cohort.py"}
