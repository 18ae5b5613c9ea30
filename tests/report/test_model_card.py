"""The card of a model whose parameters hold anything."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from doctogres.evaluation.conformal import novelty_limit
from doctogres.report.model_card import _again, _novelty


def test_a_command_of_several_lines_stays_code():
    facts: Any = SimpleNamespace(origin={}, commands=["mlflow run . -P data='a\n# <b>title</b>'", "mlflow ui"])
    lines = _again(facts).split(":\n\n")[1].splitlines()
    assert [line for line in lines if "title" in line or "ui" in line] == ["    # <b>title</b>'", "    mlflow ui"]


def test_the_card_says_where_the_limit_of_novelty_comes_from():
    assert "cannot recognise" in _novelty(None)
    few, enough = (novelty_limit(np.arange(1.0, n), [*map(str, range(1, n))], level=0.95) for n in (10, 50))
    said = _novelty(enough.model_dump())
    assert (
        "95% of slides like these count as familiar; it was estimated from 49 distances of slides of 49 groups" in said
    )
    assert "highest" not in _novelty(enough.model_dump())
    assert "too few groups for that share, so the limit is the highest distance" in _novelty(few.model_dump())
