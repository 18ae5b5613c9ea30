"""`make reference`: writes MLproject and docs/parameters.md from the catalogue of stages, so that they cannot disagree."""

from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

from doctogres.catalogue import STAGES, Stage

ROOT: Final = Path(__file__).resolve().parent.parent


def command_of(entry_point: str) -> click.Command:
    """The click command of an entry point."""
    found: Any = import_module(f"entrypoints.{entry_point}").command
    assert isinstance(found, click.Command)
    return found


def options_of(entry_point: str) -> list[click.Option]:
    """The options of its command."""
    return [option for option in command_of(entry_point).params if isinstance(option, click.Option)]


def _text(value: Any) -> str:
    """A default as it is typed."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _entry(option: click.Option) -> str:
    number = isinstance(option.type, click.IntRange)
    default = str(option.default) if number else f'"{_text(option.default)}"'
    return f"      {option.name}: {{type: {'float' if number else 'string'}, default: {default}}}"


def mlproject() -> str:
    """The text of MLproject."""
    lines = [
        "# Written by `make reference` from the stages in src/doctogres/catalogue.py.",
        "name: doctogres",
        "",
        "conda_env: conda.yaml",
        "",
        "entry_points:",
    ]
    for name in STAGES:
        options = options_of(name)
        lines += [f"  {name}:", "    parameters:", *map(_entry, options)]
        given = "".join(f"\n        --{option.name} {{{option.name}}}" for option in options)
        lines.append(f"    command: >-\n        python -m entrypoints.{name}{given}")
    return "\n".join(lines) + "\n"


def parameters_page() -> str:
    """The text of docs/parameters.md."""
    lines = [
        "# Parameters",
        "",
        "Written by `make reference` from the stages in `src/doctogres/catalogue.py`. `mlflow run . -e ENTRY_POINT -P name=value`;",
        "the default `preset` means: what the preset's YAML in `src/doctogres/presets/` says.",
        "`python -m entrypoints.ENTRY_POINT --help` prints the same.",
    ]
    for stage in STAGES.values():
        lines += ["", f"## {stage.name}", "", stage.purpose, *_flow(stage)]
        lines += ["", "| parameter | default | meaning |", "|---|---|---|"]
        for option in options_of(stage.name):
            default = f"`{_text(option.default)}` " if _text(option.default) else ""
            lines.append(f"| `{option.name}` | {default}| {option.help} |")
    return "\n".join(lines) + "\n"


def _flow(stage: Stage) -> list[str]:
    """What a stage takes from others and leaves for them."""
    takes = ", ".join(f"`{given.artifact}` of `{given.stage}`" for given in stage.inputs)
    leaves = ", ".join(f"`{name}`" + (f" ({file})" if file else "") for name, file in stage.artifacts.items())
    sentences = [f"Takes {takes}."] * bool(takes) + [f"Leaves {leaves}."] * bool(leaves)
    return ["", " ".join(sentences)] if sentences else []


if __name__ == "__main__":
    (ROOT / "MLproject").write_text(mlproject(), encoding="utf-8")
    (ROOT / "docs").mkdir(exist_ok=True)
    (ROOT / "docs" / "parameters.md").write_text(parameters_page(), encoding="utf-8")
