"""What is kept of a request to the model: rows of the answer log and the line in the server's log."""

import hashlib
import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pandas as pd
import pytest

from doctogres.errors import ParameterError
from doctogres.model.classifier import SlideClassifier
from doctogres.serving.answer_log import AnswerLog
from doctogres.serving.answers import COLUMNS, read_answers
from doctogres.serving.contract import RequestError
from doctogres.serving.monitoring import Monitoring
from doctogres.serving.pyfunc import SlideModel
from doctogres.slides import tissue
from doctogres.slides.images import encode_png
from tests.serving.drawn_requests import drawn, files

NAME = "Mrs Miller 1947"
MODEL = {"model_version": "doctogres/3", "model_id": "m-1"}


def model_of(classifier: SlideClassifier, log: AnswerLog | None, *, names: bool = False) -> SlideModel:
    model = SlideModel()
    model.classifier = classifier
    model.model_version, model.model_id = MODEL.values()
    model.monitoring = Monitoring(MODEL, log, names=names)
    return model


def ask(model: SlideModel, *rows: dict[str, Any], **params: object) -> list[dict[str, Any]]:
    return model.predict(None, pd.DataFrame(list(rows)), params=params)


@pytest.fixture
def log(tmp_path: Path) -> AnswerLog:
    return AnswerLog(tmp_path / "log")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "uvicorn.error")
    return caplog


def test_a_row_says_what_was_asked_and_answered(classifier: SlideClassifier, log: AnswerLog) -> None:
    slides = [files(1), {"image": files(2)["image"]}, {**files(3), "mask": files(3, lesions=0, speck=False)["mask"]}]
    answers = ask(model_of(classifier, log), *slides)
    rows = read_answers(log.folder)
    assert rows.dtypes.astype(str).to_dict() == COLUMNS
    assert rows["row"].tolist() == [0, 1, 2]
    assert rows["request"].nunique() == 1
    for slide, answer, (_, row) in zip(slides, answers, rows.iterrows(), strict=True):
        for name in (
            "label",
            "labels",
            "labels_valid",
            "abstained",
            "novelty",
            "n_patches",
            "n_dropped",
            "mask_source",
            "model_version",
            "model_id",
        ):
            assert row[name] == answer[name] or (answer[name] is None and pd.isna(row[name])), name
        assert row["probabilities"] == answer["probabilities"]
        assert (row["reasons"], row["warnings"]) == (answer["reasons"], answer["warnings"])
        assert row["image_sha256"] == hashlib.sha256(slide["image"]).hexdigest()
        assert (row["width"], row["height"]) == (300, 200)
    given, unmasked, empty = rows.to_dict("records")
    mask = drawn(1)[1]
    assert given["mask_sha256"] == hashlib.sha256(slides[0]["mask"]).hexdigest()
    assert given["mask_share"] == pytest.approx(mask.mean())
    assert given["confidence"] == pytest.approx(answers[0]["confidence"])
    sides = [max(patch["width"], patch["height"]) for patch in answers[0]["patches"]]
    assert given["patch_side"] == np.median(sides)
    assert (unmasked["mask_source"], pd.isna(unmasked["mask_sha256"]), pd.isna(unmasked["mask_share"])) == (
        "tissue", True, True,
    )  # fmt: skip
    assert (pd.isna(empty["label"]), empty["mask_share"], empty["n_patches"]) == (True, 0.0, 0)
    assert (rows["milliseconds"] > 0).all()


def test_novelty_and_the_labels_are_logged(
    classifier: SlideClassifier, log: AnswerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = replace(classifier.classify(*drawn(1)), novelty=1.25, labels=("A", "B"), labels_valid=True)
    monkeypatch.setattr(SlideClassifier, "answers", lambda self, slides, job: (known for _ in slides))
    ask(model_of(classifier, log), files(1))
    (row,) = read_answers(log.folder).to_dict("records")
    assert (row["novelty"], row["labels"], row["labels_valid"]) == (1.25, ["A", "B"], True)


def test_the_figures_tell_another_stain_and_scanner(classifier: SlideClassifier, log: AnswerLog) -> None:
    rgb, mask = drawn(1)
    green = np.ascontiguousarray(rgb[..., [1, 0, 2]])
    dark = (rgb * 0.9).astype(np.uint8)
    pictures = [rgb, green, dark]
    ask(model_of(classifier, log), *({"image": encode_png(one), "mask": encode_png(mask)} for one in pictures))
    usual, other, darker = read_answers(log.folder).to_dict("records")
    assert usual["stain_share"] > 0.9 > 0.1 > other["stain_share"]
    assert abs(usual["hue"] - other["hue"]) > 60
    assert usual["glass"] == pytest.approx(192, abs=2)
    assert darker["glass"] == pytest.approx(0.9 * usual["glass"], abs=2)
    assert usual["inside_share"] == pytest.approx(0.43, abs=0.03)  # 100 of 200 rows, 260 of 300 columns


def turned_and_marked(orientation: int) -> dict[str, bytes]:
    """A slide whose picture states an orientation that its mask does not: the warning names both files."""
    rgb, mask = drawn(1)
    jpeg = cv2.imencode(".jpg", rgb[..., ::-1])[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + bytes([0, orientation, 0, 0]) + bytes(4)
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    return {"image": jpeg[:2] + segment + jpeg[2:], "mask": encode_png(mask)}


def test_a_name_is_nowhere_in_the_log_unless_it_was_asked_for(
    classifier: SlideClassifier, log: AnswerLog, tmp_path: Path, lines: pytest.LogCaptureFixture
) -> None:
    slides = [
        {**turned_and_marked(6), "slide_id": NAME},
        {**files(1), "slide_id": NAME, "image": b"bad"},
        {**files(1), "slide_id": NAME, "mask": files(1, size=(9, 9))["mask"]},
    ]
    answers = ask(model_of(classifier, log), *slides, on_error="report")
    assert NAME in str(answers[0]["warnings"])
    assert NAME in answers[1]["error"]
    (content,) = (path.read_text() for path in log.folder.iterdir())
    assert "Miller" not in content + lines.text
    assert "the image states EXIF orientation 6 and the mask 1" in content
    named = AnswerLog(tmp_path / "named")
    ask(model_of(classifier, named, names=True), *slides, on_error="report")
    assert read_answers(named.folder)["slide_id"].tolist() == [NAME] * 3
    assert f"{NAME} (image) states" in str(read_answers(named.folder)["warnings"][0])


def refused(**change: object) -> dict[str, Any]:
    return {**files(1), "slide_id": "s1", **change}


@pytest.mark.parametrize(
    ("slide", "kind"),
    [
        (refused(image=b"hello"), "unreadable_image"),
        (refused(mask=b"hello"), "unreadable_mask"),
        (refused(image=None), "field"),
        (refused(image="%%%"), "field"),
        (refused(mask=encode_png(np.ones((9, 9), np.bool_))), "size_mismatch"),
        (refused(mask=encode_png(np.arange(60_000).reshape(200, 300).astype(np.uint8))), "mask_values"),
    ],
)  # fmt: skip
def test_a_refused_slide_is_a_row_with_the_kind_of_refusal(
    classifier: SlideClassifier, log: AnswerLog, lines: pytest.LogCaptureFixture, slide: dict[str, Any], kind: str
) -> None:
    model = model_of(classifier, log)
    ask(model, files(2), slide, on_error="report")
    assert re.search(rf"to doctogres/3: slides 2, not sure \d, refused 1 \({kind}\), \d+ ms$", lines.messages[-1])
    with pytest.raises(RequestError):
        ask(model, files(2), slide, slide)
    assert re.search(
        rf"to doctogres/3: slides 3, not sure 0, refused as a whole \({kind}\), \d+ ms$", lines.messages[-1]
    )
    rows = read_answers(log.folder)
    assert rows["row"].tolist() == [0, 1, 1]  # the other slides of a request that failed got no answer
    assert rows["refusal"].isna().tolist() == [True, False, False]
    assert rows["refusal"].tolist()[1:] == [kind, kind]
    assert rows["label"].isna().tolist() == [False, True, True]
    has_file = isinstance(slide["image"], bytes)
    assert rows["image_sha256"].notna().tolist() == [True, has_file, has_file]


def test_of_several_bad_slides_the_one_that_the_client_is_told_of_is_the_row(
    classifier: SlideClassifier, log: AnswerLog
) -> None:
    for _ in range(10):
        with pytest.raises(RequestError, match="s1 "):
            ask(model_of(classifier, log), files(2), refused(image=b"hello"), {**refused(image=None), "slide_id": "s2"})
    assert set(read_answers(log.folder)["refusal"]) == {"unreadable_image"}


@pytest.mark.parametrize(
    ("rows", "params", "kind"),
    [
        ([], {}, "no_slides"),
        ([{"image": b""}] * 1001, {}, "too_many_slides"),
        ([refused(slide_id="a\nb")], {}, "slide_id"),
        ([files(1)], {"on_error": "ignore"}, "parameter"),
        ([files(1)], {"identity": True}, "parameter"),
    ],
)  # fmt: skip
def test_a_request_refused_before_its_slides_is_a_line_without_rows(
    classifier: SlideClassifier, log: AnswerLog, lines: pytest.LogCaptureFixture,
    rows: list[dict[str, Any]], params: dict[str, object], kind: str,
) -> None:  # fmt: skip
    with pytest.raises(RequestError):
        ask(model_of(classifier, log), *rows, **params)
    assert f"slides 0, not sure 0, refused as a whole ({kind})" in lines.messages[-1]
    assert len(read_answers(log.folder)) == 0


def test_a_line_counts_slides_and_what_is_not_sure(
    unsure: SlideClassifier, lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(unsure, None)
    ask(model, files(1), files(2))
    assert re.search(
        r"request [0-9a-f]{8} to doctogres/3: slides 2, not sure 2, refused 0, \d+ ms$", lines.messages[-1]
    )
    before = len(lines.messages)
    assert model.predict(None, pd.DataFrame(), params={"identity": True})[0]["model_id"] == "m-1"
    assert len(lines.messages) == before
    monkeypatch.setattr(type(unsure), "answers", lambda self, cut, job: 1 / 0)
    with pytest.raises(RequestError, match="the model failed"):
        ask(model, files(1))
    assert "slides 1, not sure 0, refused as a whole (failed)" in lines.messages[-1]


def test_answers_are_given_whatever_becomes_of_the_log(
    classifier: SlideClassifier, tmp_path: Path, lines: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ask(model_of(classifier, None), files(1))
    missing = AnswerLog(tmp_path / "missing" / "log")
    assert ask(model_of(classifier, missing), files(1)) == expected
    assert lines.messages[-1].endswith(" ms, not in the answer log")
    assert missing.lost == 1

    def broken(*_: object) -> int:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(AnswerLog, "append", broken)
    assert ask(model_of(classifier, missing), files(1)) == expected
    assert "a mistake of ours" in lines.text
    with pytest.raises(RequestError, match="s1 "):
        ask(model_of(classifier, missing), refused(image=b"hello"))


def test_the_environment_says_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOCTOGRES_ANSWER_LOG", "DOCTOGRES_ANSWER_LOG_NAMES"):
        monkeypatch.delenv(name, raising=False)
    assert Monitoring.from_environment(**MODEL).log is None
    monkeypatch.setenv("DOCTOGRES_ANSWER_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("DOCTOGRES_ANSWER_LOG_NAMES", "True")
    found = Monitoring.from_environment(**MODEL)
    assert found.log is not None
    assert found.log.folder == tmp_path / "log"
    assert found.names
    monkeypatch.setenv("DOCTOGRES_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("DOCTOGRES_ANSWER_LOG", "memory://bucket/answers")
    assert (copied := Monitoring.from_environment(**MODEL).log) is not None
    assert copied.folder.parent == tmp_path / "workspace" / "answers"
    monkeypatch.setenv("DOCTOGRES_ANSWER_LOG", "s3://key:secret@bucket/answers")
    with pytest.raises(ParameterError, match="DOCTOGRES_ANSWER_LOG") as refused:
        Monitoring.from_environment(**MODEL)
    assert "secret" not in str(refused.value)
    monkeypatch.setenv("DOCTOGRES_ANSWER_LOG_NAMES", "yes please")
    with pytest.raises(ParameterError, match="DOCTOGRES_ANSWER_LOG_NAMES is 'yes please'; give true or false"):
        Monitoring.from_environment(**MODEL)


def test_a_log_changes_no_answer_and_a_slide_is_reduced_once(
    classifier: SlideClassifier, log: AnswerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    slides = [files(seed) for seed in range(6)] + [
        files(1) | {"mask": files(1, lesions=0)["mask"]},
        {"image": files(2)["image"]},
    ]
    expected = ask(model_of(classifier, None), *slides)
    assert any("mask_on_glass" in str(row["reasons"]) for row in expected)
    assert ask(model_of(classifier, log), *slides) == expected
    reduce = Mock(wraps=tissue.working_copy)
    monkeypatch.setattr(tissue, "working_copy", reduce)
    ask(model_of(classifier, log), files(1))
    assert reduce.call_count == 1


def test_a_request_whose_time_is_over_is_given_up_and_the_operator_sees_why(
    classifier: SlideClassifier, log: AnswerLog, lines: pytest.LogCaptureFixture
) -> None:
    model = model_of(classifier, log)
    model.server.time_limit = 1e-6
    with pytest.raises(RequestError, match="longer than the limit of 1e-06 s; send fewer slides") as given_up:
        ask(model, files(1), files(2), on_error="report")
    assert (given_up.value.get_http_status_code(), given_up.value.kind) == (504, "timeout")
    assert "refused as a whole (timeout)" in lines.text
    assert not log.folder.exists() or read_answers(log.folder).empty
    model.server.time_limit = None
    assert ask(model, files(1))[0]["error"] is None
