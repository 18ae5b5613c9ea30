"""What the page says of errors, to readers without a terminal."""

import io
import json
import re
from collections.abc import Callable
from functools import partial

import pytest
from PIL import Image

from doctogres.app.sentences import plain, refused, sent_name, unavailable
from doctogres.app.uploads import Pair, Upload
from doctogres.errors import DoctogresError
from doctogres.serving.client import OtherServerError, RefusedError, ServerError, SlowServerError
from doctogres.slides.formats import MAX_PIXELS_VARIABLE
from doctogres.slides.geojson import read_outlines
from doctogres.slides.images import encode_png, read_rgb
from doctogres.slides.masks import read_mask
from tests.app.test_findings import RGB
from tests.slides.costly_files import costly_png

PAIR = Pair("S1", Upload("S1.tif", b"", "1"), Upload("S1_mask.png", b"", "2"))
TECHNICAL = re.compile(r"environment|variable|DOCTOGRES|--\w|`|\b[45]\d\d\b(?! MB)|vips|traceback|http", re.IGNORECASE)


def failing(read: Callable[[], object]) -> str:
    with pytest.raises(DoctogresError) as caught:
        read()
    return str(caught.value)


def pages(number: int, *, side: int) -> bytes:
    """A TIFF of so many grey pages."""
    file = io.BytesIO()
    first, *more = [Image.new("L", (side, side), shade) for shade in range(number)]
    first.save(file, "TIFF", save_all=True, append_images=more)
    return file.getvalue()


@pytest.mark.parametrize("name", ["S1 (image)", "S1 (mask)"])
def test_a_limit_is_no_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    costly = failing(lambda: read_mask(costly_png("rgb-16")(9000, 9000), name=name))
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, "100")
    large = failing(lambda: read_rgb(encode_png(RGB), name=name))
    many = failing(lambda: read_rgb(pages(3, side=8), name=name))
    for sentence in (costly, large, many):
        assert TECHNICAL.search(sentence)
        shown = plain(sentence, PAIR)
        assert TECHNICAL.search(shown) is None
        assert shown.startswith("S1.tif has " if "image" in name else "S1_mask.png has ")
        assert "ask the person who looks after the server to raise the limit" in shown


def test_a_command_is_left_out() -> None:
    sentence = "S1 (image) uses TIFF JPEG 2000, which cannot be read here; save it with deflate or LZW compression"
    assert plain(f"{sentence}, for example: vips copy IN.tif OUT.tif[compression=deflate]", PAIR) == sentence.replace(
        "S1 (image)", "S1.tif"
    )


def test_outlines_are_chosen_before_they_are_dropped() -> None:
    square = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}
    point = {"type": "Point", "coordinates": [1, 2]}

    def outlined(*features: tuple[str, object]) -> bytes:
        found = [
            {"type": "Feature", "geometry": shape, "properties": {"classification": {"name": name}}}
            for name, shape in features
        ]
        return json.dumps({"type": "FeatureCollection", "features": found}).encode()

    for content in (outlined(("Tumor", square), ("Stroma", square)), outlined(("Tumor", point))):
        sentence = failing(partial(read_outlines, content, "S1 (mask)", annotations=""))
        assert "annotations=" in sentence
        assert "annotations=" not in plain(sentence, PAIR)
        assert "S1_mask.png" in plain(sentence, PAIR)


def test_the_name_of_the_request_is_left_out() -> None:
    assert plain("S1: the mask has 3000 regions", PAIR) == "the mask has 3000 regions"


def test_a_name_is_sent_as_the_server_accepts_it() -> None:
    assert sent_name(Pair("a\n\u200bä" + "x" * 300, None, None)) == "a__ä" + "x" * 196


@pytest.mark.parametrize(
    ("status", "words"),
    [(400, "S1.tif is truncated"), (413, "larger than the server accepts"), (500, "tell the person"), (404, "tell the person")],
)  # fmt: skip
def test_a_refused_slide_has_a_sentence_without_a_number(status: int, words: str) -> None:
    shown = refused(RefusedError("http://x", status, "S1 (image) is truncated"), PAIR)
    assert words in shown
    assert TECHNICAL.search(shown) is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RefusedError("http://x", 503, "busy"), "busy or restarting. Wait a minute"),
        (RefusedError("http://x", 429, "busy"), "busy or restarting. Wait a minute"),
        (RefusedError("http://x", 504, "timeout"), "takes too long"),
        (SlowServerError("x did not answer within 5 s; increase --timeout"), "takes too long"),
        (OtherServerError("give another --url"), "is not the model"),
        (ServerError("x does not answer (Connection refused); start a server with `make serve`"), "Ask the person"),
    ],
)
def test_a_server_that_answers_nothing_has_a_sentence_for_the_reader(error: ServerError, words: str) -> None:
    shown = unavailable(error, "MODEL")
    assert words in shown
    assert TECHNICAL.search(shown) is None
    if isinstance(error, RefusedError):
        with pytest.raises(RefusedError):
            refused(error, PAIR)
