"""`make reference`: writes MLproject and docs/parameters.md from the commands' options, so that they cannot disagree."""

from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

from entrypoints.command import Parameter, entry_parameters

ENTRY_POINTS: Final = (
    "main",
    "demo_data",
    "clean",
    "patch",
    "tune",
    "train",
    "evaluate",
    "register",
    "predict",
    "ablate",
)
ROOT: Final = Path(__file__).resolve().parent.parent


def command_of(entry_point: str) -> click.Command:
    """The click command of an entry point."""
    found: Any = import_module(f"entrypoints.{entry_point}").command
    assert isinstance(found, click.Command)
    return found


def _default(parameter: Parameter) -> str:
    if isinstance(parameter.default, bool):
        return f'"{str(parameter.default).lower()}"'
    return f'"{parameter.default}"' if isinstance(parameter.default, str) else str(parameter.default)


def mlproject() -> str:
    """The text of MLproject."""
    lines = [
        "# Written by `make reference` from the commands in entrypoints/.",
        "name: doctogres",
        "",
        "conda_env: conda.yaml",
        "",
        "entry_points:",
    ]
    for entry_point in ENTRY_POINTS:
        parameters = entry_parameters(command_of(entry_point))
        lines += [f"  {entry_point}:", "    parameters:"]
        lines += [f"      {p.name}: {{type: {p.mlproject_type}, default: {_default(p)}}}" for p in parameters]
        options = "".join(f"\n        --{p.name} {{{p.name}}}" for p in parameters)
        lines.append(f"    command: >-\n        python -m entrypoints.{entry_point}{options}")
    return "\n".join(lines) + "\n"


def parameters_page() -> str:
    """The text of docs/parameters.md."""
    lines = [
        "# Parameters",
        "",
        "Written by `make reference` from the commands in `entrypoints/`. `mlflow run . -e ENTRY_POINT -P name=value`; the default",
        "`preset` means: what the preset's YAML in `src/doctogres/presets/` says.",
        "`python -m entrypoints.ENTRY_POINT --help` prints the same.",
    ]
    for entry_point in ENTRY_POINTS:
        command = command_of(entry_point)
        lines += [
            "",
            f"## {entry_point}",
            "",
            str(command.help),
            "",
            "| parameter | default | meaning |",
            "|---|---|---|",
        ]
        for parameter in entry_parameters(command):
            default = str(parameter.default).lower() if isinstance(parameter.default, bool) else str(parameter.default)
            lines.append(
                f"| `{parameter.name}` | `{default}` | {parameter.help} |"
                if default
                else f"| `{parameter.name}` | | {parameter.help} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / "MLproject").write_text(mlproject(), encoding="utf-8")
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs" / "parameters.md").write_text(parameters_page(), encoding="utf-8")
