"""metrics.json: what was written comes back, and nothing else is taken for it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from doctogres.errors import UpstreamError
from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.scores import Scores

SCORES = Scores(
    model="models:/m-1",
    split="holdout",
    classes=("b", "a/c", "f1"),
    slides=3,
    threshold=0.1 + 0.2,
    temperature=1.5,
    metrics={"macro_f1": Estimate(0.1 + 0.2, 1 / 3, 1.0), "f1/a/c": Estimate(math.nan, math.nan, math.nan)},
    ece_raw=Estimate(0.5, math.nan, math.nan),
    null={"majority/macro_f1": Estimate(0.1, 0.0, 0.2)},
)


def content(**changes: Any) -> dict[str, Any]:
    fields = {**json.loads(SCORES.model_dump_json()), **changes}
    return {name: value for name, value in fields.items() if value is not ...}


def test_every_digit_and_the_class_order_come_back(tmp_path: Path) -> None:
    SCORES.write(tmp_path / "metrics.json")
    found = Scores.read(tmp_path / "metrics.json")
    assert repr(found) == repr(SCORES)  # undefined numbers do not equal themselves
    assert found.classes == ("b", "a/c", "f1")


def test_undefined_numbers_are_null_which_every_reader_knows(tmp_path: Path) -> None:
    SCORES.write(tmp_path / "metrics.json")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    stored = json.loads((tmp_path / "metrics.json").read_text(), parse_constant=refuse)
    assert stored["metrics"]["f1/a/c"] == {"value": None, "low": None, "high": None}
    assert stored["version"] == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "JSON"),
        ("[]", "JSON"),
        ("{}", "model: Field required"),
        (json.dumps(content(classes=...)), "classes: Field required"),
        (json.dumps(content(version=2)), "version: Input should be 1"),
        (json.dumps(content(metrics={"macro_f1": 0.5})), "metrics.macro_f1"),
        (json.dumps(content(new=1)), "new: Extra"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(UpstreamError, match=rf"metrics\.json: not the scores of an evaluation \(.*{words}.*`evaluate`"):
        Scores.read(tmp_path / "metrics.json")
