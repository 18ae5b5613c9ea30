"""The card of a model whose parameters hold anything."""

from types import SimpleNamespace
from typing import Any

from doctogres.report.model_card import _again


def test_a_command_of_several_lines_stays_code():
    facts: Any = SimpleNamespace(origin={}, commands=["mlflow run . -P data='a\n# <b>title</b>'", "mlflow ui"])
    lines = _again(facts).split(":\n\n")[1].splitlines()
    assert [line for line in lines if "title" in line or "ui" in line] == ["    # <b>title</b>'", "    mlflow ui"]
