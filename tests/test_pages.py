"""Free text stays text in Markdown."""

from pathlib import Path

import mlflow
import pytest

from doctogres.pages import markdown, markdown_code
from doctogres.tracking.runs import NOTE_TAG, StageRun

HOSTILE = "<img src=x onerror=alert(1)> [a](javascript:alert(1)) `code` **bold**\n# title\n| cell | $x$ & ~~no~~"


def test_the_signs_of_markdown_are_escaped():
    assert "\n" not in markdown(HOSTILE)
    for sign in "<>[]`*#|$&~":
        assert all(
            before == "\\"
            for before, after in zip(markdown(HOSTILE), markdown(HOSTILE)[1:], strict=False)
            if after == sign
        )


def test_code_ends_where_it_should():
    assert markdown_code("a`b|c\nd") == r"`a'b\|c d`"


@pytest.mark.parametrize("is_markdown", [False, True])
def test_the_note_of_a_run_is_escaped_unless_it_is_markdown(is_markdown, monkeypatch, tmp_path: Path):
    tags: dict[str, str] = {}
    monkeypatch.setattr(mlflow, "set_tag", tags.__setitem__)
    StageRun("clean", "0", "f", tmp_path).note(HOSTILE, is_markdown=is_markdown)
    assert tags == {NOTE_TAG: HOSTILE if is_markdown else markdown(HOSTILE)}
