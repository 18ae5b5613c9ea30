"""A path that a stage could not read or write is refused before MLflow or torch is loaded."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from doctogres.catalogue import STAGES
from doctogres.disk import free_space
from doctogres.doctor import disk
from doctogres.errors import DoctogresError
from doctogres.presets import load_preset
from doctogres.slides.selection import is_outside
from entrypoints.paths import check_paths, naming_closed
from entrypoints.reference import command_of
from tests.disks import close
from tests.servers import ROOT
from tests.stores import plain_environment

HEAVY = ("mlflow", "torch", "timm", "pandas", "matplotlib")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DOCTOGRES_WORKSPACE", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("stage", "name", "value"),
    [
        ("clean", "data", "nowhere"),
        ("main", "data", "nowhere.zip"),
        ("clean", "decisions", "nowhere.csv"),
        ("patch", "cohort", "nowhere"),
        ("train", "params", "nowhere.yaml"),
        ("evaluate", "model", "nowhere"),
        ("register", "evaluation", "nowhere"),
        ("predict", "model", "nowhere"),
        ("train", "weights", "nowhere.safetensors"),
        ("main", "weights", "nowhere.safetensors"),
        ("train", "backbone", "local-dir:nowhere"),
    ],
)
def test_a_relative_path_that_is_not_there_says_where_it_was_looked_for(
    here: Path, stage: str, name: str, value: str
) -> None:
    values: dict[str, Any] = {name: value}
    if name in ("weights", "backbone"):
        values = {"preset": load_preset("small", values)}
    with pytest.raises(DoctogresError) as error:
        check_paths(STAGES[stage], values)
    assert str(here / value.removeprefix("local-dir:")) in str(error.value)


@pytest.mark.parametrize(
    ("stage", "values", "said"),
    [
        ("predict", {"output": "missing/submission.csv"}, "output=missing/submission.csv: there is no folder "),
        ("predict", {"output": "folder"}, "output=folder: this is a folder"),
        ("predict", {"output": "file/submission.csv"}, "there is no folder "),
        ("export", {"output": "file/export"}, "output=file/export: "),
        ("predict", {"output": "s3://KEY:secret@bucket/submission.csv"}, "output=s3://"),
        ("demo_data", {"target": "file/demo"}, "target=file/demo: "),
        ("demo_data", {"target": "s3://bucket/demo"}, "target=s3://bucket/demo: the cohort is drawn on this machine"),
        ("clean", {"json": "folder"}, "json=folder: this is a folder"),
        ("clean", {"json": "file/result.json"}, "json="),
        ("clean", {"json": "gs://bucket/result.json"}, "json=gs://bucket/result.json: gs:// needs another package"),
        ("clean", {"json": "s3://KEY:secret@bucket/result.json"}, "json=s3://"),
        ("tune", {"storage": "sqlite:///file/study.db"}, "storage="),
    ],
)
def test_a_place_where_nothing_can_be_written_is_refused(
    here: Path, stage: str, values: dict[str, Any], said: str
) -> None:
    (here / "folder").mkdir()
    (here / "file").write_text("")
    with pytest.raises(DoctogresError, match=said):
        check_paths(STAGES[stage], values)


def test_the_workspace_is_checked(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "file").write_text("")
    monkeypatch.setenv("DOCTOGRES_WORKSPACE", str(here / "file" / "workspace"))
    with pytest.raises(DoctogresError, match="DOCTOGRES_WORKSPACE="):
        check_paths(STAGES["patch"], {})


def test_a_path_in_somebody_elses_closed_folder_is_refused_with_the_parameter(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    close(here / "closed", monkeypatch)
    refused = f"{here / 'closed' / 'cohort'} is closed to you (Permission denied); ask its owner for permission"
    with pytest.raises(SystemExit) as stop:
        command_of("clean").main(["--data", "closed/cohort"])
    said = capsys.readouterr().err
    assert (stop.value.code, said.count("\n")) == (2, 1)
    assert said.startswith(f"clean: error: data=closed/cohort: {refused}")
    for values, named in (({"split": "closed", "seed": 1}, "split=closed: "), ({"data": "other", "split": ""}, "")):
        with pytest.raises(DoctogresError) as error, naming_closed(values):
            is_outside("closed/cohort")
        assert str(error.value).startswith(f"{named}{refused}")


def test_a_workspace_in_somebody_elses_closed_folder_is_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close(here / "closed", monkeypatch)
    monkeypatch.setenv("DOCTOGRES_WORKSPACE", str(here / "closed" / "more" / "workspace"))
    with pytest.raises(DoctogresError, match=f"DOCTOGRES_WORKSPACE=.* written in {here / 'closed'}; give another"):
        check_paths(STAGES["patch"], {})
    assert free_space(here / "closed" / "more") > 0
    assert disk(here / "closed" / "more", "workspace", "").text.startswith(f"{here / 'closed'} cannot be written to")


@pytest.mark.parametrize("value", ["latest", "none", "0" * 32, "runs:/abc/x", "models:/doctogres@champion", "here"])
def test_what_is_no_path_or_exists_passes(here: Path, value: str) -> None:
    (here / "here").mkdir()
    check_paths(STAGES["train"], {"patches": value, "preset": load_preset("demo")})
    check_paths(STAGES["predict"], {"model": value, "output": "submission.csv"})
    check_paths(STAGES["export"], {"model": value, "output": "here"})  # as the first export has left it


def test_an_address_passes_and_nobody_is_asked(here: Path) -> None:
    address = "s3://bucket.example/x.safetensors"
    for name, value in (("weights", f"none,{address}"), ("backbone", f"test_vit, local-dir:{address}")):
        check_paths(
            STAGES["train"], {"preset": load_preset("demo", {"backbone": "a,b", "weights": "none", name: value})}
        )
    check_paths(STAGES["clean"], {"json": "s3://bucket.example/result.json"})
    check_paths(STAGES["clean"], {"json": "missing/result.json"})  # its folder is made


def test_nothing_heavy_is_loaded_for_a_refusal(here: Path) -> None:
    code = (
        "import sys\nfrom entrypoints.predict import command\n"
        "try:\n    command.main(['--data', '.', '--output', 'missing/x.csv'])\n"
        f"finally:\n    print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    environment = plain_environment() | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "predict: error: output=missing/x.csv: there is no folder " in done.stderr
    assert done.stdout.strip() == "[]"


def test_every_one_of_several_models_is_looked_for(here: Path) -> None:
    check_paths(STAGES["evaluate"], {"model": f"models:/doctogres/1, {'0' * 32}, latest"})
    with pytest.raises(DoctogresError) as error:
        check_paths(STAGES["evaluate"], {"model": "models:/doctogres/1,nowhere"})
    assert str(here / "nowhere") in str(error.value)
