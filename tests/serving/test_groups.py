"""The answer for a patient in the rows of a request."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doctogres.model.classifier import SlideClassifier
from doctogres.model.group_answer import GroupRule
from doctogres.model.temperature import Calibration
from doctogres.serving.answer_log import AnswerLog
from doctogres.serving.client import as_text, joined, slide_body
from doctogres.serving.contract import RequestError, requested_slides
from doctogres.serving.groups import NO_RULE, WITHOUT
from tests.serving.drawn_requests import files
from tests.serving.test_monitoring import ask, model_of

COLUMNS = list(WITHOUT)


@pytest.fixture
def grouping(classifier: SlideClassifier) -> SlideClassifier:
    """The classifier, which answers for groups, too."""
    rule = GroupRule(method="mean", calibration=Calibration.none(0.9))
    return replace(classifier, card=classifier.card.model_copy(update={"group": rule}))


def slides(*groups: str | None) -> list[dict[str, Any]]:
    return [files(seed) | {"slide_id": f"s{seed}", "group": group} for seed, group in enumerate(groups)]


def test_every_row_of_a_group_has_the_same_answer_for_it(grouping: SlideClassifier) -> None:
    rows = ask(model_of(grouping, None), *slides("p", "q", "p", None))
    shares = [np.array(list(row["probabilities"].values())) for row in rows]
    for place, members in ((0, [0, 2]), (1, [1]), (2, [0, 2])):
        row, mean = rows[place], np.mean([shares[member] for member in members], axis=0)
        np.testing.assert_allclose(list(row["group_probabilities"].values()), mean)
        assert row["group_label"] == list(row["probabilities"])[mean.argmax()]
        assert row["group_confidence"] == pytest.approx(mean.max())
        assert (row["group_slides"], row["group_abstained"], row["group_left_out"]) == (len(members), False, [])
    assert [row["group"] for row in rows] == ["p", "q", "p", None]
    assert {name: rows[3][name] for name in COLUMNS} == WITHOUT


def test_a_request_without_groups_is_answered_as_before(grouping: SlideClassifier, classifier: SlideClassifier) -> None:
    for asked in (
        slides(None, None),
        [{key: row[key] for key in ("image", "mask", "slide_id")} for row in slides("", "")],
    ):
        assert ask(model_of(grouping, None), *asked) == ask(model_of(classifier, None), *asked)
        assert not set(ask(model_of(grouping, None), *asked)[0]) & set(COLUMNS)


def test_refused_slides_do_not_count_and_are_named(grouping: SlideClassifier) -> None:
    asked = slides("p", "p", "p")
    asked[1]["image"] = b"no picture"
    asked[2]["mask"] = files(2, lesions=0, speck=False)["mask"]
    good, refused, bare = ask(model_of(grouping, None), *asked, on_error="report")
    assert good["group_slides"] == refused["group_slides"] == bare["group_slides"] == 1
    assert good["group_probabilities"] == good["probabilities"]
    assert [text.split()[0] for text in good["group_left_out"]] == ["s1", "s2:"]
    assert refused["group_label"] == good["label"]
    with pytest.raises(RequestError, match="s1"):
        ask(model_of(grouping, None), *asked)
    (nothing,) = ask(model_of(grouping, None), asked[1], on_error="report")
    assert (nothing["group_label"], nothing["group_confidence"], nothing["group_abstained"]) == (None, None, True)


def test_a_model_without_a_rule_says_so(classifier: SlideClassifier) -> None:
    (row,) = ask(model_of(classifier, None), *slides("p"))
    assert (row["group"], row["group_label"], row["group_reasons"]) == ("p", None, [NO_RULE])


def test_a_group_is_a_name_and_stays_out_of_the_answer_log(grouping: SlideClassifier, tmp_path: Path) -> None:
    for wrong in (["a"], "x" * 201, "a\nb", 1.5):
        with pytest.raises(
            RequestError, match=r"slide-0 \(group\) is not a valid name; give text of at most 200"
        ) as refused:
            requested_slides(pd.DataFrame([files(0) | {"group": wrong}]))
        assert refused.value.kind == "group"
    assert requested_slides(pd.DataFrame([files(0) | {"group": 7}]))[0].group == "7"
    log = AnswerLog(tmp_path / "log")
    ask(model_of(grouping, log), *slides("Mrs Miller"))
    (written,) = (tmp_path / "log").iterdir()
    assert "Mrs Miller" not in written.read_text()
    assert written.stat().st_size


def test_the_client_sends_a_patient_and_shows_the_answer(grouping: SlideClassifier) -> None:
    bodies = [slide_body(f"s{seed}", *files(seed).values(), group="p") for seed in range(2)]
    body = joined(bodies)
    assert [row["group"] for row in body["dataframe_records"]] == ["p", "p"]
    assert "group" not in slide_body("s", *files(0).values())["dataframe_records"][0]
    first, second = ask(model_of(grouping, None), *body["dataframe_records"])
    for row in (first, second):
        assert f"group         p: {row['group_label']}, confidence {row['group_confidence']:.2f}, slides 2" in as_text(
            row
        )
    (alone,) = ask(model_of(grouping, None), files(0))
    assert "group" not in as_text(alone)
