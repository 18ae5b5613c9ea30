"""Values that cannot be used are refused with one line, before any work."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from doctogres.errors import ParameterError
from doctogres.presets import PRESETS, load_preset, replaced
from doctogres.remote import local
from doctogres.settings import Preset
from entrypoints.reference import ROOT, command_of
from tests.stores import new_store


@pytest.mark.parametrize(
    ("entry_point", "arguments", "words"),
    [
        ("train", ["--epochs", "0"], ["epochs=0", "greater than or equal to 1"]),
        ("train", ["--learning_rate", "fast"], ["learning_rate=fast", "number"]),
        ("train", ["--device", "tpu"], ["device=tpu", "'cpu'"]),
        ("train", ["--epochz", "3"], ["epochz", "no such parameter", "epochs"]),
        ("main", ["--preset", "grand"], ["preset", "demo", "challenge"]),
        ("main", ["--seed", "-1"], ["seed", "0<=x"]),
        ("clean", ["--slime", "eat"], ["slime=eat", "'drop'", "'repair'", "'keep'"]),
        ("clean", ["--strict", "maybe"], ["strict", "maybe"]),
        ("patch", ["--patch_size", "8"], ["patch_size=8", "16"]),
        ("demo_data", ["--size", "3"], ["size", "12<=x"]),
    ],
)
def test_a_bad_value_is_one_line_that_names_the_parameter_and_what_is_allowed(
    entry_point: str,
    arguments: list[str],
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        command_of(entry_point).main(arguments)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert all(word in message for word in words), message
    assert list(tmp_path.iterdir()) == [], "work was begun"


def test_an_error_of_the_stage_is_one_line_and_status_one(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command_of("clean").main(["--data", "nowhere"])
    assert stop.value.code == 1
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("clean: error: nowhere does not exist")


def test_debug_shows_the_traceback_of_an_error(
    store: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCTOGRES_DEBUG", "1")
    with pytest.raises(SystemExit):
        command_of("clean").main(["--data", "nowhere"])
    lines = capsys.readouterr().err.strip().splitlines()
    assert any(line.startswith("Traceback") for line in lines)
    assert lines[-1].startswith("clean: error: nowhere does not exist")


@pytest.mark.parametrize(
    ("error", "said", "traceback"),
    [
        (
            ZeroDivisionError("division by zero"),
            "ZeroDivisionError: division by zero. This is a fault of doctogres",
            True,
        ),
        (MemoryError(), "the memory is too small for this step: ", False),
    ],
)
def test_only_a_fault_of_the_program_comes_with_its_traceback(
    store: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    said: str,
    traceback: bool,
) -> None:
    def fail(**given: object) -> None:
        raise error

    monkeypatch.setattr("doctogres.stages.clean.clean", fail)
    with pytest.raises(SystemExit) as stop:
        command_of("clean").main(["--data", str(store)])
    assert stop.value.code == 1
    errors = capsys.readouterr().err
    assert errors.strip().splitlines()[-1].startswith(f"clean: error: {said}")
    assert ("Traceback" in errors) is traceback


@pytest.mark.slow
def test_a_process_that_fails_leaves_no_traceback(empty_store: Path, tmp_path: Path) -> None:
    store = new_store(empty_store, tmp_path)
    environment = {"PATH": "", "MLFLOW_TRACKING_URI": store, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "entrypoints.clean", "--data", "nowhere"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("clean: error: nowhere does not exist")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", ["memory://bucket/results/init.json", "results/init.json"])
def test_the_result_goes_to_a_path_or_an_address(
    in_memory: Any, store: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (store / "slides").mkdir()
    Image.new("RGB", (64, 64)).save(store / "slides" / "a.png")
    command_of("init").main(["--data", "slides", "--output", "", "--json", place])
    result = json.loads(local(place).read_text("utf-8"))
    assert (result["stage"], result["metrics"]["slides"]) == ("init", 1)
    assert result["run_id"] not in capsys.readouterr().out.splitlines()[0]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_load_and_take_overrides(name: str) -> None:
    assert load_preset(name, {"epochs": "3"}).train.epochs == 3
    assert load_preset(name).tune.space.keys() <= type(load_preset(name).train).model_fields.keys()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_hold_only_what_differs_from_the_defaults(name: str) -> None:
    listed = yaml.safe_load((ROOT / f"src/doctogres/presets/{name}.yaml").read_text(encoding="utf-8"))
    preset, default = load_preset(name).model_dump(), Preset().model_dump()
    for section, values in listed.items():
        for setting in values:
            assert preset[section][setting] != default[section][setting], f"{section}.{setting}"


def test_what_a_preset_file_leaves_out_has_its_default(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("train:\n  epochs: 3\n")
    assert load_preset(str(tmp_path / "mine.yaml")) == replaced(Preset(), "train", {"epochs": 3})


def test_presets_are_strict() -> None:
    with pytest.raises(ParameterError, match="no such setting"):
        load_preset("demo", {"colour": 1})
    with pytest.raises(ParameterError, match="no such preset"):
        load_preset("../demo")
    with pytest.raises(ParameterError, match="dropout"):
        replaced(load_preset("demo"), "train", {"dropout": 2})


@pytest.mark.parametrize(
    "given",
    ["imagnet", "0.5,0.5,0.5", "0.5,0.5,0.5,0.2,0.2,0", "123.7,116.3,103.5,58.4,57.1,57.4", "0.5,0.5,0.5,0.2,0.2,nan"],
)
def test_a_normalisation_that_no_input_has_is_refused(given: str) -> None:
    with pytest.raises(ParameterError, match=f"normalisation={given}: give weights, imagenet, half, or six numbers"):
        load_preset("demo", {"normalisation": given})


def test_the_challenge_preset_is_the_published_recipe() -> None:
    preset = load_preset("challenge")
    assert (preset.train.backbone, preset.train.weights, preset.patch.patch_size) == ("convnext_tiny", "imagenet", 224)
    assert (preset.train.unfreeze_every, preset.patch.min_area) == (20, 200)
