"""A slide on the page, and what became of it."""

import base64
from typing import Any

import pytest

from doctogres.app.cases import Case, Status, classified, counted
from doctogres.app.uploads import Pair, Upload
from doctogres.serving.client import RefusedError, ServerError
from doctogres.slides.images import encode_png, read_rgb
from tests.app.test_findings import ANSWER, RGB, UNSURE
from tests.scripted import Scripted, says, url
from tests.servers import free_port

__all__ = ["url"]

PAIR = Pair("S1", Upload("S1.png", b"slide", "1"), Upload("S1_mask.png", b"mask", "2"))
OVERLAY = {"overlay": base64.b64encode(encode_png(RGB)).decode()}


def answered(url: str, **changes: Any) -> Case:
    says(200, {"predictions": [ANSWER | OVERLAY | changes]})
    return Case(PAIR, classified(PAIR, url, timeout=20))


def test_the_answer_is_kept_with_its_overlay_as_jpeg(url: str) -> None:
    case = answered(url)
    (row,) = Scripted.asked["dataframe_records"]
    assert {name: base64.b64decode(row[name]) for name in ("image", "mask")} == {"image": b"slide", "mask": b"mask"}
    assert row["slide_id"] == "S1"
    assert Scripted.asked["params"] == {"overlay": True}
    assert (case.status, case.note, case.answer["label"]) == (Status.SURE, "", "HER2(+)")
    assert case.result
    assert case.result.overlay.startswith(b"\xff\xd8")
    assert read_rgb(case.result.overlay, name="overlay").shape == RGB.shape
    assert case.answer["overlay"] is None


def test_the_note_says_what_a_reader_must_know(url: str) -> None:
    unsure = answered(url, **UNSURE, mask_source="tissue", warnings=["no mask was given: 3 of 4 tiles ..."])
    assert unsure.status == Status.NOT_SURE
    assert unsure.note == "the confidence 0.60 is below 0.70; no lesion mask: tiles of the tissue were classified"
    turned = answered(url, warnings=["S1 (mask) states EXIF orientation 6"])
    assert turned.note == "S1_mask.png states EXIF orientation 6"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((400, {"message": "S1 (mask) is truncated"}), "S1_mask.png is truncated"),
        ((200, {"predictions": [ANSWER | {"label": None, "warnings": ["the mask is empty"]}]}), "the mask is empty"),
        ((500, {"message": "the model failed on this request"}), "the server failed on this slide"),
    ],
)
def test_a_slide_without_an_answer_is_refused_with_the_reason(
    url: str, reply: tuple[int, dict[str, Any]], words: str
) -> None:
    says(*reply)
    case = Case(PAIR, classified(PAIR, url, timeout=20))
    assert case.status == Status.REFUSED
    assert words in case.note
    assert case.answer == {}


def test_an_empty_file_is_refused_before_it_is_sent() -> None:
    pair = Pair("S1", Upload("S1.png", b"slide", "1"), Upload("S1_mask.png", b"", "2"))
    case = Case(pair, classified(pair, f"http://127.0.0.1:{free_port()}", timeout=20))
    assert case.refusal == "S1_mask.png is an empty file; copy or export it again"


def test_a_server_that_is_away_or_busy_refuses_no_slide(url: str) -> None:
    says(503, {"message": "busy"})
    with pytest.raises(RefusedError):
        classified(PAIR, url, timeout=20)
    with pytest.raises(ServerError):
        classified(PAIR, f"http://127.0.0.1:{free_port()}", timeout=20)


def test_files_that_are_no_pair_are_refused_and_are_no_slide(url: str) -> None:
    lost = Case(Pair("S2", None, PAIR.mask, "no slide belongs to it"))
    assert (lost.status, lost.note) == (Status.REFUSED, "no slide belongs to it")
    cases = [answered(url), answered(url, **UNSURE), Case(PAIR), lost]
    assert counted(cases) == "3 slides: 1 sure, 1 not sure, 1 waiting"
    assert counted(cases[:1]) == "1 slide: 1 sure"
    assert counted([lost]) == "0 slides"
