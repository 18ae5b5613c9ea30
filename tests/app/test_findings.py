"""The answer as the page shows it."""

import base64
import re
from typing import Any

import numpy as np
import pytest

from doctogres.app.findings import (
    MOST_PATCHES,
    notices,
    notices_html,
    overlay_text,
    patches_html,
    percent,
    subtype_html,
)
from doctogres.drawing import class_colours
from doctogres.slides.images import read_rgb

SHARES = {"Luminal B": 0.3, "HER2(+)": 0.6, "Luminal A": 0.1}
ANSWER: dict[str, Any] = {
    "slide_id": "biopsy", "label": "HER2(+)", "abstained": False, "confidence": 0.6, "probabilities": SHARES,
    "n_patches": 2, "n_dropped": 1, "mask_source": "given", "overlay": None, "model_version": "doctogres/3",
    "labels": ["HER2(+)", "Luminal A"], "labels_valid": True, "novelty": 0.626,
    "reasons": [], "warnings": [], "error": None, "patches": [
        {"x": 30, "y": 10, "width": 40, "height": 20, "area": 700, "label": "Luminal B",
         "probabilities": {"Luminal B": 0.8, "HER2(+)": 0.2, "Luminal A": 0.0}},
        {"x": 0, "y": 50, "width": 300, "height": 150, "area": 9000, "label": "HER2(+)",
         "probabilities": {"Luminal B": 0.1, "HER2(+)": 0.9, "Luminal A": 0.0}},
    ],
}  # fmt: skip
FILES = {"slide": "biopsy 7.png", "mask": "biopsy 7_mask.png"}
UNSURE: dict[str, Any] = {"abstained": True, "reasons": ["low_confidence: the confidence 0.60 is below 0.70"]}
RGB = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
HOSTILE = '<img src=x onerror="alert(1)">'


def crops(html: str) -> list[np.ndarray]:
    """The pictures in the HTML, as RGB."""
    files = [base64.b64decode(found) for found in re.findall(r"data:image/png;base64,([^\"]+)", html)]
    return [read_rgb(file, name="crop") for file in files]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({}, []),
        ({"warnings": ["a", "b"]}, [("note", "a; b")]),
        (UNSURE, [("warning", "HER2(+) is the most probable subtype, but the confidence 0.60 is")]),
        (
            {"abstained": True, "reasons": ["full_mask: x"], "warnings": ["full_mask: x"]},
            [("warning", "HER2(+) is the most probable subtype, but x")],
        ),
        ({"mask_source": "tissue", "warnings": ["no mask"]}, [("warning", "no mask")]),
        (UNSURE | {"mask_source": "tissue"}, [("warning", "HER2(+) is"), ("warning", "")]),
        ({"label": None, "abstained": True, "warnings": ["the mask is empty"]}, [("error", "the mask is empty")]),
    ],
)
def test_what_a_reader_must_know_first(answer: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    found = notices(ANSWER | answer)
    assert [kind for kind, _, _ in found] == [kind for kind, _ in expected]
    assert all(notice.text.startswith(text) for notice, (_, text) in zip(found, expected, strict=True))


def test_an_unsure_answer_is_no_headline() -> None:
    assert "<h2>HER2(+)</h2>" in subtype_html(ANSWER, **FILES)
    unsure = subtype_html(ANSWER | {"abstained": True}, **FILES)
    assert "<h2>Not sure</h2>" in unsure
    assert "most probable: HER2(+), 60 %" in unsure


def test_the_answer_names_its_slide_and_mask() -> None:
    assert "Slide <b>biopsy 7.png</b>, mask <b>biopsy 7_mask.png</b>" in subtype_html(ANSWER, **FILES)
    assert "Slide <b>biopsy 7.png</b>, no mask" in subtype_html(ANSWER, **FILES | {"mask": ""})


@pytest.mark.parametrize(("novelty", "words"), [(0.626, "0.63: like"), (1.2, "1.20: unlike"), (None, "")])
def test_novelty_is_shown_with_its_meaning(novelty: float | None, words: str) -> None:
    html = subtype_html(ANSWER | {"novelty": novelty}, **FILES)
    assert f"Novelty {words} the slides" in html if words else "Novelty" not in html


def test_the_pictures_have_texts() -> None:
    assert overlay_text(ANSWER, "S1.png").startswith("the slide S1.png with the lesion mask outlined and ")
    assert "lesion mask" not in overlay_text(ANSWER | {"mask_source": "tissue"}, "S1.png")
    assert 'alt="patch at 30, 10 px: Luminal B, 80 %"' in patches_html(ANSWER, RGB)


def test_the_labels_are_listed_where_they_are_valid():
    listed = "<p>The true subtype is probably one of: HER2(+), Luminal A</p>"
    assert listed in subtype_html(ANSWER, **FILES)
    assert "probably one of" not in subtype_html(ANSWER | {"labels_valid": False}, **FILES)


def test_the_bars_go_down_and_have_the_overlays_colours() -> None:
    bars = re.findall(
        r'row">([^<]+)<.*?width:([\d.]+)%;background:rgb\((\d+),(\d+),(\d+)\)', subtype_html(ANSWER, **FILES)
    )
    assert [(name, float(width)) for name, width, *_ in bars] == [("HER2(+)", 60), ("Luminal B", 30), ("Luminal A", 10)]
    assert {name: tuple(map(int, colour)) for name, _, *colour in bars} == class_colours(list(SHARES))


def test_the_patches_are_cut_from_the_picture_the_telling_ones_first() -> None:
    html = patches_html(ANSWER, RGB)
    large, small = crops(html)
    np.testing.assert_array_equal(small, RGB[10:30, 30:70])
    assert large.shape == (64, 128, 3)
    assert re.findall(r"<figcaption>(.*?)</figcaption>", html) == ["HER2(+)<br>90 %", "Luminal B<br>80 %"]


def test_too_many_patches_are_counted() -> None:
    html = patches_html(ANSWER | {"patches": ANSWER["patches"][:1] * (MOST_PATCHES + 1)}, RGB)
    assert len(crops(html)) == MOST_PATCHES
    assert f"{MOST_PATCHES} of {MOST_PATCHES + 1}" in html


def test_no_name_or_sentence_is_read_as_html() -> None:
    shares = {HOSTILE: 1.0}
    patch = ANSWER["patches"][0] | {"label": HOSTILE, "probabilities": shares}
    names = dict.fromkeys(("slide_id", "label", "model_version"), HOSTILE)
    for abstained in (True, False):
        answer = (
            ANSWER | names | {"labels": [HOSTILE], "warnings": [HOSTILE], "probabilities": shares, "patches": [patch]}
        )
        answer["abstained"] = abstained
        for html in (
            notices_html(notices(answer)),
            subtype_html(answer, slide=HOSTILE, mask=HOSTILE),
            patches_html(answer, RGB),
        ):
            assert "<img src=x" not in html
            assert "&lt;img src=x" in html


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.004, "< 1 %"), (0.306, "31 %"), (0.996, "> 99 %"), (1.0, "100 %")]
)
def test_percent_is_whole_and_never_overdone(share: float, text: str) -> None:
    assert percent(share) == text
