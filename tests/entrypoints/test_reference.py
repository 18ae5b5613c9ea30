"""MLproject and the page of parameters are what the commands' options say."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from mlflow.projects._project_spec import load_project

from doctogres.catalogue import STAGES
from doctogres.presets import sections_of
from doctogres.settings import AGGREGATIONS, Preset
from entrypoints.reference import ROOT, command_of, mlproject, parameters_page


def test_the_committed_files_are_current() -> None:
    assert (ROOT / "MLproject").read_text(encoding="utf-8") == mlproject(), "run `make reference`"
    assert (ROOT / "docs" / "parameters.md").read_text(encoding="utf-8") == parameters_page(), "run `make reference`"


@pytest.mark.parametrize("entry_point", STAGES)
def test_mlproject_lists_the_parameters_with_their_defaults_and_no_settings(entry_point: str) -> None:
    listed = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"][entry_point]
    options = {option.name: option for option in command_of(entry_point).params if isinstance(option, click.Option)}
    assert list(listed["parameters"]) == [given.name for given in STAGES[entry_point].parameters]
    for name, entry in listed["parameters"].items():
        assert entry["type"] in {"string", "float"}
        assert str(entry["default"]).lower() == str(options[name].default).lower()
        assert options[name].help
        assert f"--{name} {{{name}}}" in listed["command"]
    assert f"entrypoints.{entry_point} " in listed["command"] + " "


def test_a_setting_reaches_the_command_and_only_what_was_given_is_recorded() -> None:
    entry = load_project(str(ROOT)).get_entry_point("train")
    given = {"epochs": "3", "weights": "my model.safetensors"}
    declared, others = entry.compute_parameters(given, storage_dir=None)
    assert declared.keys() == {given.name for given in STAGES["train"].parameters}
    assert others == {"epochs": "3", "weights": "'my model.safetensors'"}
    words = shlex.split(entry.compute_command(given, storage_dir=None))[3:]
    values = command_of("train").make_context("train", words).params
    assert (values["epochs"], values["weights"], values["learning_rate"]) == (3, "my model.safetensors", None)


def test_the_entry_points_are_the_agreed_ones() -> None:
    agreed = {"main", "demo_data", "init", "clean", "patch", "tune", "train", "evaluate", "register", "promote"}
    agreed |= {"predict", "export", "monitor", "ablate"}
    assert set(yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]) == agreed


def test_a_setting_has_one_meaning_in_all_sections() -> None:
    names = [name for section in Preset.model_fields.values() for name in section.annotation.model_fields]  # type: ignore[union-attr]
    assert len(names) == len(set(names))
    assert all(len(sections_of(name)) == 1 for name in names)


@pytest.mark.parametrize(
    ("entry_point", "name", "values"),
    [
        ("train", "start", ["probe", "random"]),
        ("main", "aggregation", list(AGGREGATIONS)),
        ("register", "promote", ["auto", "force", "ask"]),
    ],
)
def test_the_values_of_a_parameter_with_few_of_them_are_named(
    entry_point: str, name: str, values: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    section = re.split(r"^## ", parameters_page(), flags=re.M)[1 + list(STAGES).index(entry_point)]
    row = next(line for line in section.splitlines() if line.startswith(f"| `{name}` "))
    assert row.endswith(f". Values: {', '.join(f'`{value}`' for value in values)} |")
    command_of(entry_point).main(["--help"])
    assert f"--{name} [{'|'.join(values)}]" in capsys.readouterr().out


def test_the_page_has_the_value_of_every_setting_in_every_preset() -> None:
    *_, tables = parameters_page().partition("\n## Settings by preset\n")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", tables, re.M))
    settings = [name for section in Preset.model_fields.values() for name in section.annotation.model_fields]  # type: ignore[union-attr]
    assert [*rows] == [name for name in settings if name != "space"]
    wanted = {"holdout": "0.3 | 0.2 | 0.2", "learning_rate": "0.001 | 0.0002 | 0.0001", "tta": "false | true | false"}
    assert {name: rows[name] for name in wanted} == wanted
    assert rows["view_weights"] == "- | window:2 | -"


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, entrypoints.main; print(sorted({'mlflow', 'torch', 'timm', 'optuna', 'pandas', 'cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_conda_yaml_names_python_and_the_pins() -> None:
    conda = yaml.safe_load((ROOT / "conda.yaml").read_text(encoding="utf-8"))
    assert conda["dependencies"] == ["python=3.11", "pip", {"pip": ["-r requirements.txt"]}]


def test_requirements_are_exact_pins_without_addresses() -> None:
    for name in ("requirements.txt", "requirements-app.txt", "requirements-dev.txt"):
        lines = [line for line in Path(ROOT / name).read_text(encoding="utf-8").splitlines() if line.strip()]
        assert lines
        for line in lines:
            requirement = line.split(";")[0].split("#")[0].strip()
            assert "==" in requirement, line
            assert "/" not in requirement, line
