"""What a request may hold, and the sentence for each thing that it may not."""

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.types.schema import Schema
from mlflow.utils.proto_json_utils import dataframe_from_parsed_json

from doctogres.errors import DoctogresError, ParameterError
from doctogres.serving.contract import Parameters, RequestError, input_example, model_signature, requested_slides
from doctogres.slides.images import encode_png
from tests.servers import as_json
from tests.serving.drawn_requests import files

Row = Mapping[str, Any]


def table(*rows: Row) -> pd.DataFrame:
    """The rows as MLflow's scoring server hands them over."""
    inputs: Schema = model_signature().inputs
    records = json.loads(json.dumps(as_json(*rows)))["dataframe_records"]
    frame: pd.DataFrame = dataframe_from_parsed_json(records, "records", inputs)
    return frame


def with_size(png: bytes, width: int, height: int) -> bytes:
    """The PNG with another size in its header."""
    start = png[:16] + struct.pack(">II", width, height) + png[24:29]
    return start + struct.pack(">I", zlib.crc32(start[12:])) + png[33:]


def test_bytes_and_base64_are_the_same_slide_and_its_mask_is_optional() -> None:
    slide = files(1)
    for rows in (pd.DataFrame([{**slide, "slide_id": "a"}]), table({**slide, "slide_id": "a"})):
        (asked,) = requested_slides(rows)
        source, mask, _ = asked.read()
        assert (asked.slide_id, source.size, mask is not None and mask.shape) == ("a", (300, 200), (200, 300))
    for nothing in (None, "", float("nan"), b""):
        row = {"image": slide["image"]} | ({} if nothing is None else {"mask": nothing})
        (unmasked,) = requested_slides(pd.DataFrame([row]))
        assert unmasked.read()[1] is None
    first, second = requested_slides(table({**slide, "slide_id": "7"}, {"image": slide["image"], "mask": None}))
    assert (first.slide_id, second.slide_id) == ("7", "slide-1")
    assert requested_slides(table({**slide, "slide_id": 7}))[0].slide_id == "7"
    assert first.read()[1] is not None
    assert second.read()[1] is None


def test_the_input_example_is_a_request() -> None:
    (slide,) = requested_slides(input_example())
    source, mask, _ = slide.read()
    assert mask is not None
    assert mask.sum() == 24 * 24
    assert source.size == (64, 64)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda slide: {"image": "%%%"}, "s1 (image) is not valid base64"),
        (lambda slide: {"image": "data:image/png;base64,iVBORw0KGgo="}, "s1 (image) is not valid base64"),
        (lambda slide: {"mask": "abc"}, "s1 (mask) is not valid base64"),
        (lambda slide: {"image": b"hello world"}, "s1 (image) is not a picture"),
        (lambda slide: {"mask": b"hello world"}, "s1 (mask) is not a picture"),
        (lambda slide: {"image": slide["image"][:400]}, "s1 (image) is truncated"),
        (lambda slide: {"image": with_size(slide["image"], 60_000, 60_000)}, "s1 (image) has 60000 x 60000 pixels"),
        (lambda slide: {"mask": with_size(slide["mask"], 60_000, 60_000)}, "s1 (mask) has 60000 x 60000 pixels"),
        (lambda slide: {"mask": encode_png(np.ones((5, 7), np.bool_))}, "s1 (mask) has 7 x 5 pixels, s1 (image) 300"),
        (lambda slide: {"mask": encode_png(np.arange(60_000).reshape(200, 300).astype(np.uint8))}, "s1 (mask) is not bi"),
        (lambda slide: {"image": None}, "s1 (image) is missing"),
        (lambda slide: {"image": 5}, "s1 (image) is not a file"),
        (lambda slide: {"image": [1, 2]}, "s1 (image) is not a file"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_with_slide_field_and_remedy(change: Callable[[Row], Row], sentence: str) -> None:
    (slide,) = requested_slides(table({**files(1), "slide_id": "s1", **change(files(1))}))
    with pytest.raises(DoctogresError) as refused:
        slide.read()
    assert str(refused.value).startswith(sentence)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("column", ["image", "mask", "slide_id"])
def test_a_list_where_a_file_or_a_name_is_wanted_is_refused(column: str) -> None:
    """Parquet has arrays in its cells."""
    row = {**files(1), "slide_id": "s1", column: np.array([1, 2])}
    with pytest.raises((DoctogresError, RequestError), match="is not a"):
        requested_slides(pd.DataFrame([row]))[0].read()


@pytest.mark.parametrize(
    "rows", [[], [{}], [{"picture": "iVBO"}], [{"picture": "iVBO", "slide_id": "s1"}], [{"slide_id": "s1"}]]
)  # fmt: skip
def test_a_request_without_a_slide_says_what_a_slide_is(rows: list[Row]) -> None:
    with pytest.raises(RequestError, match="contains no slides: give rows with a column image"):
        requested_slides(table(*rows))


def test_a_request_of_30_000_slides_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = table(*[{"image": "aGVsbG8="}] * 30_000)
    with pytest.raises(RequestError, match="contains 30000 slides, more than the limit of 1000; split it into several"):
        requested_slides(rows)
    monkeypatch.setenv("DOCTOGRES_MAX_SLIDES", "30000")
    assert len(requested_slides(rows)) == 30_000
    monkeypatch.setenv("DOCTOGRES_MAX_SLIDES", "many")
    with pytest.raises(ParameterError, match="DOCTOGRES_MAX_SLIDES"):
        requested_slides(rows)


@pytest.mark.parametrize("name", ["x" * 1000, ["a"], {"a": 1}, 7.0, "two\nlines"])
def test_a_slide_id_that_is_no_name_is_not_repeated(name: object) -> None:
    with pytest.raises(RequestError, match=r"slide-0 \(slide_id\) is not a valid name") as refused:
        requested_slides(table({"image": "aGVsbG8=", "slide_id": name}))
    assert "xxx" not in str(refused.value)


def test_parameters_have_the_models_own_as_default_and_others_are_named() -> None:
    assert Parameters.of(None) == Parameters(overlay=False, tta=None, on_error="raise", min_area=None)
    with pytest.raises(RequestError, match="on_error"):
        Parameters.of({"on_error": "ignore"})
    with pytest.raises(RequestError, match="min_area"):
        Parameters.of({"min_area": 0})


def test_what_is_sent_back_is_the_sentence_alone() -> None:
    error = RequestError("s1 (image) is missing", kind="field")
    error.message = f"Failed to predict data 'iVBORw0KGgo'. \nError: {error.message}"  # as the scoring server does
    assert json.loads(error.serialize_as_json()) == {"error_code": "BAD_REQUEST", "message": "s1 (image) is missing"}
    assert error.get_http_status_code() == 400


def test_spark_takes_every_field_of_the_answer() -> None:
    """MLflow's spark_udf refuses a struct with a binary field."""
    assert "binary" not in json.dumps(model_signature().outputs.to_dict())


def test_the_signature_demands_no_more_than_the_contract() -> None:
    """What a slide may lack, and what an answer lacks when there is none, is optional for MLflow and Spark, too."""
    signature = model_signature()
    assert not any(column.required for column in signature.inputs)
    optional = {column.name for column in signature.outputs if not column.required}
    assert optional == {"label", "confidence", "novelty", "mask_source", "overlay", "geojson", "error"}
    defaults = {param.name: param.default for param in signature.params}
    assert Parameters.of(defaults) == Parameters()


def test_what_is_just_within_the_limits_is_taken() -> None:
    assert Parameters.of({"min_area": 1}).min_area == 1
    (slide,) = requested_slides(table({"image": "aGVsbG8=", "slide_id": "x" * 200}))
    assert slide.slide_id == "x" * 200
    with pytest.raises(RequestError, match=r"not a valid name"):
        requested_slides(table({"image": "aGVsbG8=", "slide_id": "x" * 201}))
