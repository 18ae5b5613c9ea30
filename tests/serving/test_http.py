"""The champion behind `mlflow models serve`: what an integrator's program sends and gets."""

import base64
import io
import json
import os
import subprocess
import sys
import urllib.error
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from doctogres.model.classifier import SlideClassifier
from doctogres.slides.images import encode_png, read_rgb
from tests.servers import ROOT, as_json, post
from tests.serving.drawn_requests import drawn, files

pytestmark = pytest.mark.slow
PARQUET = "application/vnd.apache.parquet"


def answers(address: str, *rows: Mapping[str, object], **params: object) -> list[dict[str, Any]]:
    body = json.dumps(as_json(*rows, **params)).encode()
    found: list[dict[str, Any]] = post(address, body, "application/json")["predictions"]
    return found


def refusal(address: str, body: bytes, kind: str = "application/json") -> str:
    """What a refused request gets: checked to be status 400 and one sentence."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(address, body, kind)
    content = refused.value.read().decode()
    assert refused.value.code == 400, content
    assert json.loads(content).keys() == {"error_code", "message"}
    message: str = json.loads(content)["message"]
    assert len(message.splitlines()) == 1
    assert not any(word in message for word in ("Traceback", 'File "', "site-packages", str(ROOT), "iVBORw0"))
    return message


def test_many_slides_one_by_one_and_the_classifier_itself_agree(address: str, classifier: SlideClassifier) -> None:
    rows: list[Mapping[str, object]] = [{**files(seed), "slide_id": f"slide {seed}"} for seed in range(4)]
    together = answers(address, *rows)
    for seed, answer in enumerate(together):
        (alone,) = answers(address, rows[seed])
        evaluated = classifier.classify(*drawn(seed))
        assert alone["slide_id"] == answer["slide_id"] == f"slide {seed}"
        assert alone["label"] == answer["label"] == evaluated.label
        for served in (alone, answer):
            np.testing.assert_allclose(list(served["probabilities"].values()), evaluated.probabilities, atol=1e-5)
        assert [patch["area"] for patch in answer["patches"]] == evaluated.patches["area"].tolist()
        assert answer["model_version"] == "doctogres/1"


def test_parquet_is_json_and_a_mask_may_be_missing(address: str) -> None:
    rows: list[Mapping[str, object]] = [files(1), {"image": files(2)["image"], "mask": None, "slide_id": "bare"}]
    table = io.BytesIO()
    pd.DataFrame(rows).to_parquet(table)
    assert post(address, table.getvalue(), PARQUET)["predictions"] == (found := answers(address, *rows))
    assert [row["mask_source"] for row in found] == ["given", "tissue"]
    assert "no mask was given" in found[1]["warnings"][0]


def test_the_parameters_arrive(address: str) -> None:
    slide = files(3)
    (plain,), (turned,) = (
        answers(address, slide),
        answers(address, slide, tta=True, overlay=True, min_area=10, geojson=True),
    )
    assert plain["overlay"] is plain["geojson"] is None
    outlines = json.loads(turned["geojson"])["features"]
    assert [found["properties"]["classification"]["name"] for found in outlines] == [
        patch["label"] for patch in turned["patches"]
    ]
    assert read_rgb(base64.b64decode(turned["overlay"]), name="overlay").shape == (200, 300, 3)
    assert turned["probabilities"] != plain["probabilities"]
    assert "tta=True" in turned["warnings"][0]


def test_one_bad_slide_fails_the_request_or_is_reported(address: str) -> None:
    rows: list[Mapping[str, object]] = [files(1), {**files(2), "image": "%%%", "slide_id": "s1"}, files(3)]
    assert refusal(address, json.dumps(as_json(*rows)).encode()).startswith("s1 (image) is not valid base64")
    first, second, third = answers(address, *rows, on_error="report")
    assert second["error"].startswith("s1 (image) is not valid base64")
    assert second["label"] is None
    assert first["error"] is third["error"] is None
    assert [first["label"], third["label"]] == [answers(address, row)[0]["label"] for row in (rows[0], rows[2])]


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{**files(1), "image": b"hello", "slide_id": "s1"}], "s1 (image) is not a picture"),
        ([{**files(1), "image": files(1)["image"][:500], "slide_id": "s1"}], "s1 (image) is truncated"),
        ([{**files(1), "mask": encode_png(np.ones((9, 9), np.bool_)), "slide_id": "s1"}], "s1 (mask) has 9 x 9"),
        ([{"picture": files(1)["image"], "slide_id": "s1"}], "the request contains no slides"),
        ([], "the request contains no slides"),
        ([{"image": "aGVsbG8="}] * 30_000, "the request contains 30000 slides, more than the limit of 1000"),
    ],
)  # fmt: skip
def test_what_is_refused_gets_one_sentence_and_the_next_request_works(
    address: str, rows: list[Mapping[str, object]], sentence: str
) -> None:
    assert refusal(address, json.dumps(as_json(*rows)).encode()).startswith(sentence)
    assert answers(address, files(1))[0]["error"] is None


def nested(depth: int, column: str = "image") -> bytes:
    body = json.dumps(as_json({**files(1), column: "HERE", "slide_id": "s1"}))
    return body.replace('"HERE"', "[" * depth + "]" * depth).encode()


def test_values_inside_values_are_refused(address: str) -> None:
    for column in ("image", "mask"):
        assert refusal(address, nested(500, column)).startswith(f"s1 ({column}) is not a file")


def test_what_is_too_deep_for_mlflows_reader_ends_its_request_only(address: str) -> None:
    """Python's JSON reader gives up before the model is asked, and MLflow does not catch that: docs/serving.md."""
    for depth in (1_000, 1_000_000):
        with pytest.raises(urllib.error.HTTPError) as failed:
            post(address, nested(depth), "application/json")
        assert (failed.value.code, failed.value.read()) == (500, b"Internal Server Error")
    assert answers(address, files(1))[0]["error"] is None


def test_every_answer_and_the_identity_name_the_same_model(address: str) -> None:
    (answer,) = answers(address, files(1))
    (identity,) = answers(address, identity=True)
    assert answer["model_id"].startswith("m-")
    for name in ("model_version", "model_id"):
        assert answer[name] == identity[name]
    command = [sys.executable, "-m", "doctogres.client", "--identity", "--url", address]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"model version   doctogres/1\nmodel id        {answer['model_id']}\n" in done.stdout
    both = json.dumps(as_json(files(1), identity=True)).encode()
    assert refusal(address, both) == "params: identity asks which model is served; leave out the slides"


def test_the_client_prints_the_answer_and_writes_the_overlay(address: str, tmp_path: Path) -> None:
    for name, content in files(1).items():
        (tmp_path / f"{name}.png").write_bytes(content)
    command = [
        sys.executable,
        "-m",
        "doctogres.client",
        "image.png",
        "mask.png",
        "--url",
        address,
        "--overlay",
        "o.png",
    ]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "label" in done.stdout
    assert "doctogres/1" in done.stdout
    assert read_rgb(tmp_path / "o.png").shape == (200, 300, 3)
