"""New labels meet the answers that were given, by the digests of the files."""

import numpy as np
import pandas as pd
import pytest

from doctogres.evaluation.comparison import compare
from doctogres.evaluation.given_answers import ANSWERED, changes, join_answers, logged_slides, score_given
from doctogres.evaluation.predictions import Predictions
from doctogres.serving.answers import COLUMNS

CLASSES = ("a", "b")


def log(*rows: tuple[str, str | None, str | None, int]) -> pd.DataFrame:
    """Rows of an answer log: picture, mask, label (`!` is a refusal), day."""
    table = pd.DataFrame(
        [
            {
                "image_sha256": f"i{image}",
                "mask_sha256": None if mask is None else f"m{mask}",
                "label": None if label in (None, "!") else label,
                "refusal": "unreadable_image" if label == "!" else None,
                "abstained": label == "b",
                "confidence": 0.8,
                "model_version": f"doctogres/{day}",
                "time": f"2026-01-0{day}T12:00:00Z",
            }
            for image, mask, label, day in rows
        ]
    ).reindex(columns=list(COLUMNS))
    table["time"] = pd.to_datetime(table["time"], utc=True)
    return table.astype(COLUMNS)


def slides(count: int) -> pd.DataFrame:
    names = [str(number) for number in range(count)]
    return pd.DataFrame(
        {
            "slide_id": names,
            "image_sha256": [f"i{name}" for name in names],
            "mask_sha256": [f"m{name}" for name in names],
        }
    )


def test_the_newest_answer_to_picture_and_mask_is_the_slides() -> None:
    asked = log(
        ("0", "0", "a", 2),
        ("0", "0", "b", 1),
        ("1", "9", "a", 1),
        ("2", None, "a", 1),
        ("3", "3", "!", 1),
        ("4", "4", None, 1),
        ("9", "5", "a", 1),
    )
    assert logged_slides(asked) == 4
    joined = join_answers(slides(6), asked).set_index("slide_id")
    assert joined["found"].tolist() == [
        "answered", "answered with another mask or none", "answered with another mask or none", "refused",
        "answered without a label", "not in the answer log",
    ]  # fmt: skip
    assert (joined.loc["0", "given"], joined.loc["0", "model_version"]) == ("a", "doctogres/2")
    assert joined.loc["1":, "given"].isna().all()


@pytest.fixture
def predictions() -> Predictions:
    truth = ["a", "a", "b", "b", "a", "b"]
    now = ["a", "a", "b", "a", "a", "b"]
    rows = pd.DataFrame({
        "slide_id": [str(number) for number in range(6)], "label": truth, "group": ["p", "p", "q", "r", "s", "t"],
        "predicted": now, "abstained": [False, True, False, False, False, False],
    })  # fmt: skip
    return Predictions(rows, CLASSES, np.eye(2)[[CLASSES.index(one) for one in now]])


def test_answers_as_given_are_scored_beside_the_model_on_the_same_slides(predictions: Predictions) -> None:
    given = ["a", "b", "b", "b", "a"]
    joined = join_answers(slides(6), log(*((str(number), str(number), label, 1) for number, label in enumerate(given))))
    review, table = score_given(joined, predictions, logged=8, resamples=200, seed=1)
    shares = np.eye(2)[[CLASSES.index(label) for label in given]]
    rows = predictions.rows[:5]
    expected = compare(
        rows["label"].tolist(), {"as given": [shares], "rescored": [predictions.probabilities[:5]]}, CLASSES,
        against={"rescored": "as given"}, groups=rows["group"].tolist(), resamples=200, seed=1,
    )  # fmt: skip
    assert (review.as_given, review.rescored) == (expected.values["as given"], expected.values["rescored"])
    assert review.difference == expected.differences["rescored"]
    assert (review.slides, review.found, review.models) == (
        6,
        {ANSWERED: 5, "not in the answer log": 1},
        {"doctogres/1": 5},
    )
    assert (review.sure, review.changed) == (0.4, 2)
    assert (
        changes(table)
        == "1: given b (not sure), now a (not sure), truth a; 3: given b (not sure), now a (sure), truth b"
    )
    assert "group" not in table
    assert "The log has answers to 8 different slides; the labels of 5 of them (62%) are known now." in review.sentence


def test_a_class_that_this_model_does_not_know_is_a_wrong_answer(predictions: Predictions) -> None:
    joined = join_answers(slides(6), log(("0", "0", "c", 1), ("1", "1", "a", 1)))
    review, _ = score_given(joined, predictions, logged=8, resamples=100, seed=1)
    assert review.as_given is not None
    assert review.as_given.value == pytest.approx(2 / 3)  # of the class a: one of two is found, none is claimed in vain
    nothing, _ = score_given(
        join_answers(slides(6), log(("9", "9", "a", 1))), predictions, logged=8, resamples=100, seed=1
    )
    assert nothing.as_given is None
    assert nothing.sentence == (
        "Of 6 labelled slides: 6 not in the answer log. The log has answers to 8 different slides; the labels of 0 of them (0%) are "
        "known now."
    )
