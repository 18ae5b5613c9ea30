"""The command-line client, against a server that says what a test tells it to."""

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from doctogres.serving.client import main
from tests.scripted import Scripted, says, url
from tests.servers import ROOT, free_port

__all__ = ["url"]

ANSWER: dict[str, Any] = {
    "slide_id": "biopsy", "label": "HER2(+)", "abstained": True, "confidence": 0.41,
    "probabilities": {"Luminal A": 0.3, "HER2(+)": 0.41, "Luminal B": 0.29}, "n_patches": 7, "n_dropped": 2,
    "mask_source": "given", "patches": [], "overlay": base64.b64encode(b"PNG").decode(), "model_version": "doctogres/3", "model_id": "m-1",
    "reasons": [], "warnings": ["a warning"], "error": None,
}  # fmt: skip


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    (tmp_path / "biopsy.png").write_bytes(b"picture")
    (tmp_path / "mask.png").write_bytes(b"mask")
    return tmp_path / "biopsy.png"


def test_the_answer_is_a_small_table_and_the_overlay_a_file(
    url: str, slide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says(200, {"predictions": [ANSWER]})
    overlay = slide.parent / "o.png"
    assert main([str(slide), str(slide.parent / "mask.png"), "--url", url, "--overlay", str(overlay)]) == 0
    (row,) = Scripted.asked["dataframe_records"]
    assert row["slide_id"] == "biopsy"
    assert {name: base64.b64decode(row[name]) for name in ("image", "mask")} == {"image": b"picture", "mask": b"mask"}
    assert Scripted.asked["params"] == {"overlay": True}
    assert overlay.read_bytes() == b"PNG"
    says(200, {"predictions": [{**ANSWER, "geojson": "{}"}]})
    outlines = slide.parent / "o.geojson"
    assert main([str(slide), "--url", url, "--geojson", str(outlines), "--annotations", "Tumor"]) == 0
    assert Scripted.asked["params"] == {"geojson": True, "annotations": "Tumor"}
    assert outlines.read_text() == "{}"
    printed = capsys.readouterr().out
    for words in ("HER2(+) (not sure", "0.41", "7, 2 left out", "doctogres/3", "a warning", str(overlay)):
        assert words in printed
    assert printed.index("HER2(+)    0.410") < printed.index("Luminal A  0.300") < printed.index("Luminal B  0.290")


def test_the_labels_are_listed_and_marked_where_they_say_nothing(
    url: str, slide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for valid, ending in ((True, "\n"), (False, " (not valid for this slide)\n")):
        says(200, {"predictions": [ANSWER | {"labels": ["HER2(+)", "Luminal A"], "labels_valid": valid}]})
        assert main([str(slide), "--url", url]) == 0
        assert f"one of        HER2(+), Luminal A{ending}" in capsys.readouterr().out
    says(200, {"predictions": [ANSWER]})  # of an older model
    assert main([str(slide), "--url", url]) == 0
    assert "one of" not in capsys.readouterr().out


def test_without_mask_and_overlay_nothing_is_asked_for(
    url: str, slide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing: dict[str, Any] = {
        "label": None,
        "confidence": None,
        "probabilities": {},
        "mask_source": None,
        "overlay": None,
    }
    says(200, {"predictions": [ANSWER | nothing]})
    assert main([str(slide), "--url", f"{url}/"]) == 0
    assert Scripted.asked["dataframe_records"][0].keys() == {"slide_id", "image"}
    assert "params" not in Scripted.asked
    assert "label         none" in capsys.readouterr().out
    assert main([str(slide), "--url", url, "--overlay", str(slide.parent / "o.png")]) == 1
    assert "there is no overlay" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (400, {"error_code": "BAD_REQUEST", "message": "biopsy (image) is truncated"}, "(400): biopsy (image) is trunc"),
        (504, b"Request processing time exceeded limit", "(504): Request processing time exceeded limit"),
        (200, b"<html>", "does not serve a doctogres model"),
        (200, {"predictions": []}, "does not serve a doctogres model"),
        (200, {"predictions": [{"score": 1}]}, "does not serve a doctogres model"),
    ],
)  # fmt: skip
def test_what_the_server_refuses_is_one_line(
    url: str, slide: Path, capsys: pytest.CaptureFixture[str], status: int, content: object, words: str
) -> None:
    says(status, content)
    assert main([str(slide), "--url", url]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("doctogres.client: error: ")
    assert words in line


def test_the_identity_is_asked_for_without_a_slide(url: str, slide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    identity = {
        "model_version": "doctogres/3",
        "model_id": "m-1",
        "classes": ["a", "b"],
        "threshold": None,
    }
    says(200, {"predictions": [identity]})
    assert main(["--identity", "--url", url]) == 0
    assert Scripted.asked == {"dataframe_records": [], "params": {"identity": True}}
    printed = capsys.readouterr().out
    for line in ("model version   doctogres/3", "model id        m-1", "classes         a, b"):
        assert line in printed
    says(200, {"predictions": [{"score": 1}]})
    assert main(["--identity", "--url", url]) == 1
    assert "does not serve a doctogres model" in capsys.readouterr().err
    for both_or_none in ([], ["--identity", str(slide)]):
        with pytest.raises(SystemExit):
            main([*both_or_none, "--url", url])
        assert "give either a slide or --identity" in capsys.readouterr().err


def test_no_server_a_slow_one_and_no_file(url: str, slide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(slide), "--url", f"http://127.0.0.1:{free_port()}"]) == 1
    assert "does not answer" in (error := capsys.readouterr().err)
    assert "make serve" in error
    says(200, {"predictions": [ANSWER]}, delay=2.0)
    assert main([str(slide), "--url", url, "--timeout", "0.2"]) == 1
    assert "did not answer within 0.2 s; increase --timeout" in capsys.readouterr().err
    assert main([str(slide.parent / "none.png"), "--url", url]) == 1
    assert "none.png: cannot be read" in capsys.readouterr().err
    (slide.parent / "mask.png").write_bytes(b"")
    assert main([str(slide), str(slide.parent / "mask.png"), "--url", url]) == 1
    assert "biopsy (mask) is an empty file" in capsys.readouterr().err
    assert main([str(slide), "--url", "nonsense"]) == 1
    assert "nonsense" in capsys.readouterr().err


def test_a_password_in_the_address_is_refused_and_not_shown(slide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(slide), "--url", "http://me:hunter2@127.0.0.1:1"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("doctogres.client: error: url=http://me:***@127.0.0.1:1: a password in an address ")
    assert line.endswith("; leave it out: a served model asks for none")


def test_the_client_starts_without_the_heavy_libraries() -> None:
    code = "import sys, doctogres.client; print(sorted({'torch', 'numpy', 'mlflow', 'pandas'} & sys.modules.keys()))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
