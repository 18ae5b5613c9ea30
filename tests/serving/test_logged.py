"""The logged model's folder: nothing in it runs when it is read, and it is complete."""

import io
import pickle
import pickletools
import re
import shutil
import subprocess
import sys
import time
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
from mlflow.models import Model
from mlflow.store.artifact.models_artifact_repo import REGISTERED_MODEL_META_FILE_NAME

from doctogres.files import TEMPORARY
from doctogres.liveness import process_name
from doctogres.model.classifier import SlideClassifier
from doctogres.serving.loading import load_classifier
from doctogres.serving.pyfunc import model_id, registered_name
from doctogres.telemetry import OFF
from tests.serving.drawn_requests import drawn, files
from tests.stores import connected
from tests.test_files import dead_process

COLUMNS = [
    "slide_id", "label", "abstained", "confidence", "probabilities", "labels", "labels_valid", "novelty",
    "n_patches", "n_dropped", "mask_source", "patches", "overlay", "geojson", "model_version", "model_id",
    "reasons", "warnings", "error",
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
    assert {line.split("==")[0] for line in requirements} >= {"openslide-python", "openslide-bin"}  # installed here
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
    assert first["model_version"] == first["model_id"] == model.metadata.model_id
    assert third["n_patches"] == 1  # the speck, which says so
    assert [warning.partition(":")[0] for warning in third["warnings"]] == ["mask_on_glass", "largest_region"]
    assert (third["abstained"], third["reasons"]) == (True, third["warnings"][:1])


def test_the_name_of_the_version_survives_other_loads_and_a_file_that_is_being_written(
    champion: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(champion[1], tmp_path / "model"))
    meta = folder / REGISTERED_MODEL_META_FILE_NAME
    named = "model_name: doctogres\nmodel_version: '3'\n"
    for cut in range(len(named)):  # what another process has written of it so far
        meta.write_text(named[:cut])
        monkeypatch.setattr(time, "sleep", lambda _: None)
        assert registered_name(folder) in ("", "doctogres/3")
        monkeypatch.setattr(time, "sleep", lambda seconds: meta.write_text(named) if seconds else None)
        assert registered_name(folder) == "doctogres/3"
    assert model_id(folder) == Model.load(str(folder)).model_id


def test_our_own_loads_leave_the_file_alone_in_which_a_server_reads_its_version(
    champion: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(champion[0], tmp_path, monkeypatch):
        served = Path(mlflow.artifacts.download_artifacts(artifact_uri="models:/doctogres@champion"))
        assert registered_name(served) == "doctogres/1"
        load_classifier(f"models:/{model_id(served)}")
        assert registered_name(served) == "doctogres/1"


def test_a_model_that_is_loaded_removes_what_killed_servers_left(
    champion: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, read = (tmp_path / f"{TEMPORARY}{owner}-x.tif" for owner in (dead_process(), process_name()))
    for path in (left, read):
        path.touch()
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    mlflow.pyfunc.load_model(str(champion[1]))
    assert (left.exists(), read.exists()) == (False, True)


def test_the_identity_is_answered_without_a_slide(model: Any) -> None:
    nothing = pd.DataFrame()
    (identity,) = model.predict(nothing, params={"identity": True})
    assert identity["model_id"] == model.metadata.model_id
    assert identity["classes"] == list(model.unwrap_python_model().classifier.card.classes)
    assert re.fullmatch("[0-9a-f]{64}", identity["weights_sha256"])
    with pytest.raises(MlflowException, match="identity asks which model is served; leave out the slides"):
        model.predict(pd.DataFrame([files(1)]), params={"identity": True})
    with pytest.raises(MlflowException, match="the request contains no slides"):
        model.predict(nothing)


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
    monkeypatch.setattr(type(inner.classifier), "answers", lambda self, cut, job: 1 / 0)
    with pytest.raises(MlflowException, match="the model failed on this request; see the server's log") as failed:
        model.predict(request)
    assert "division" not in failed.value.serialize_as_json()
    assert failed.value.get_http_status_code() == 500
