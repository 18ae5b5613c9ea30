"""The logged model's folder: nothing in it runs when it is read, and it is complete."""

import io
import pickle
import pickletools
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from mlflow.exceptions import MlflowException

from doctogres.model.classifier import SlideClassifier
from doctogres.telemetry import OFF
from tests.serving.drawn_requests import drawn, files

COLUMNS = [
    "slide_id", "label", "abstained", "confidence", "probabilities", "n_patches", "n_dropped", "mask_source",
    "patches", "overlay", "model_version", "reasons", "warnings", "error",
]  # fmt: skip


def holds_pickle(content: bytes) -> bool:
    """Whether the file, or a file in it where it is a zip, is a pickle of any protocol."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return any(holds_pickle(archive.read(name)) for name in archive.namelist())
    if re.match(rb"\x80[\x02-\x05]", content):
        return True
    try:
        return bool(content) and any(opcode.name == "STOP" for opcode, _, _ in pickletools.genops(content))
    except ValueError:
        return False


def test_no_file_of_the_model_is_a_pickle(champion: tuple[str, Path]) -> None:
    saved = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, saved)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert holds_pickle(pickle.dumps({"a": [1]}, protocol))
    assert holds_pickle(saved.getvalue())
    found = [path for path in champion[1].rglob("*") if path.is_file()]
    assert {"weights.safetensors", "classifier.json", "MLmodel", "pyfunc.py"} <= {path.name for path in found}
    assert [path.name for path in found if holds_pickle(path.read_bytes())] == []


def test_the_environment_is_exact_to_the_last_package(champion: tuple[str, Path]) -> None:
    folder = champion[1]
    requirements = (folder / "requirements.txt").read_text().split("\n")
    constraints = (folder / "constraints.txt").read_text().split("\n")
    assert requirements[-1] == "-c constraints.txt"
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!]+", line) for line in [*requirements[:-1], *constraints])
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in constraints}
    assert {"fastapi", "uvicorn", "pydantic-core", "scikit-learn"} <= pinned
    conda = yaml.safe_load((folder / "conda.yaml").read_text())
    assert conda["dependencies"][-1]["pip"] == requirements
    assert conda["variables"] == OFF


@pytest.mark.slow
def test_answering_needs_nothing_that_the_models_environment_lacks(champion: tuple[str, Path]) -> None:
    """Run with every other library of ours out of reach, and with the model's own copy of this package."""
    code = """
import sys
sys.modules.update(dict.fromkeys(["accelerate", "captum", "lion_pytorch", "optuna", "pdqhash", "psycopg", "hypothesis"]))
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
(row,) = model.predict(model.input_example, params={"overlay": True})
print(bool(row["label"] and row["overlay"]), sys.modules["doctogres"].__file__.startswith(sys.argv[1]))
"""
    command = [sys.executable, "-c", code, str(champion[1])]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "True"], done.stderr[-2000:]


@pytest.fixture(scope="module")
def model(champion: tuple[str, Path]) -> Any:
    """The logged model, loaded."""
    return mlflow.pyfunc.load_model(str(champion[1]))


def test_the_loaded_model_answers_as_the_classifier_does(model: Any, classifier: SlideClassifier) -> None:
    first, second, third = model.predict(pd.DataFrame([
        {**files(1), "slide_id": "one"}, {"image": files(2)["image"]}, {**files(3), "mask": files(3, lesions=0)["mask"]},
    ]), params={"overlay": True})  # fmt: skip
    assert all(list(row) == COLUMNS for row in (first, second, third))
    assert [column.name for column in model.metadata.get_output_schema()] == COLUMNS
    for row, expected in ((first, classifier.classify(*drawn(1))), (second, classifier.classify(drawn(2)[0], None))):
        assert row["label"] == expected.label
        np.testing.assert_allclose(list(row["probabilities"].values()), expected.probabilities, atol=1e-5)
        assert (row["n_patches"], row["n_dropped"]) == (len(expected.patches), expected.dropped)
        assert row["overlay"]
    assert second["mask_source"] == "tissue"
    assert first["model_version"].startswith("m-")
    assert third["n_patches"] == 1  # the speck, which says so
    assert [warning.partition(":")[0] for warning in third["warnings"]] == ["mask_on_glass", "largest_region"]
    assert (third["abstained"], third["reasons"]) == (True, third["warnings"][:1])


def test_a_slide_without_a_region_is_not_answered_and_is_no_error(model: Any) -> None:
    empty = {**files(1), "mask": files(1, lesions=0, speck=False)["mask"]}
    (row,) = model.predict(pd.DataFrame([empty]), params={"overlay": True})
    assert (row["label"], row["abstained"], row["confidence"], row["probabilities"]) == (None, True, None, {})
    assert "the mask is empty" in row["warnings"][0]
    assert row["error"] is None


def test_errors_are_raised_or_reported(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    request = pd.DataFrame([files(1), {**files(1), "image": b"x", "slide_id": "s1"}])
    with pytest.raises(MlflowException, match=r"^s1 \(image\) is not a picture"):
        model.predict(request)
    good, bad = model.predict(request, params={"on_error": "report"})
    assert good["error"] is None
    assert (bad["label"], bad["abstained"]) == (None, True)
    assert bad["error"].startswith("s1 (image) is not a picture")
    inner = model.unwrap_python_model()
    monkeypatch.setattr(type(inner.classifier), "answers", lambda self, cut: 1 / 0)
    with pytest.raises(MlflowException, match="the model failed on this request; see the server's log") as failed:
        model.predict(request)
    assert "division" not in failed.value.serialize_as_json()
    assert failed.value.get_http_status_code() == 500
