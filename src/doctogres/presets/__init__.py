"""The presets: YAML files of the settings that differ from the defaults; single values are overridden by name."""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError

from doctogres.errors import ParameterError
from doctogres.remote import check_usable, is_address, local
from doctogres.settings import ATTENTION, SEARCHED_ANSWERS, Preset, is_used

PRESETS: Final = ("demo", "small", "challenge")
AUTO: Final = "auto"  # a command chooses one of these for its cohort: `planning.auto`


def sections_of(name: str) -> list[str]:
    """The preset sections with a setting of this name (at most one: a test checks that names are unique)."""
    return [
        section
        for section, field in Preset.model_fields.items()
        if isinstance(field.annotation, type) and name in field.annotation.model_fields
    ]


def load_preset(name: str, overrides: Mapping[str, Any] | None = None) -> Preset:
    """The preset with some of its settings replaced.

    Args:
        name: one of `PRESETS`, or the path or address of a YAML file with the same structure.
        overrides: setting name -> value (text is parsed as the setting's type).

    Raises:
        ParameterError: the preset or a setting is unknown, or a value is not allowed; the message says what is.
        RemoteError: the address cannot be read.
    """
    preset = _valid(_preset_content(name), f"preset={name}: ")
    check_space(preset)
    content = preset.model_dump()
    given = {"preset": name, **(overrides or {})}
    for setting, value in (overrides or {}).items():
        sections = sections_of(setting)
        if not sections:
            raise ParameterError(f"{setting}={value}: no such setting")
        content[sections[0]][setting] = value
    return (_valid(content) if overrides else preset).recording(given)


def _preset_content(name: str) -> Any:
    if name in PRESETS:
        return yaml.safe_load(files("doctogres").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8"))
    if not name.endswith((".yaml", ".yml")):
        problem = "only a command chooses one, for its cohort" if name == AUTO else "no such preset"
        raise ParameterError(f"preset={name}: {problem}; give {', '.join(PRESETS)}, or the path of a YAML file")
    if is_address(name):
        check_usable("preset", name)
    try:
        return yaml.safe_load(local(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ParameterError(f"preset={name}: the file cannot be read: {reason}") from error


def _valid(content: Any, origin: str = "") -> Preset:
    try:
        return Preset.model_validate(content)
    except ValidationError as error:
        raise ParameterError(origin + _problems(error)) from error


def _problems(error: ValidationError) -> str:
    """Every problem as `section.setting=value: what is wrong`, on one line."""
    problems = []
    for problem in error.errors():
        place = ".".join(map(str, problem["loc"])) or "the file"
        value = "" if isinstance(problem["input"], Mapping | BaseModel | None) else f"={problem['input']}"
        problems.append(f"{place}{value}: {problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(problems)


def check_space(preset: Preset) -> None:
    """Checks that trials can tell the searched settings apart, and that the preset's own, the first trial's, lie inside.

    Raises:
        ParameterError: names the setting, its value and the range.
    """
    own, space = tuned_values(preset), preset.tune.space
    recipes = space["recipe"].choices if "recipe" in space else (own["recipe"],)
    attended = "aggregation" in space and space["aggregation"].holds(ATTENTION)
    if "finetune" in (recipes or ()) and ("tta" in space or attended):
        raise ParameterError(
            f"{'aggregation=attention' if attended else 'tta'}: the study's short trainings with recipe=finetune are scored "
            "without flips, rotations and attention, so it cannot choose them; take it out of `tune: space:`, or search "
            "probes only"
        )
    for name, values in preset.tune.space.items():
        value = own[name]
        if is_used(name, own) and not values.holds(value):
            raise ParameterError(
                f"{name}={value}: outside the study's search space ({values}), but the first trial uses the preset's own "
                f"settings; give a {name} inside it, or widen `tune: space:` in a preset file"
            )


def tuned_values(preset: Preset) -> dict[str, Any]:
    """The preset's own values of all settings that a study may search."""
    return preset.train.model_dump() | preset.answer.model_dump(include=set(SEARCHED_ANSWERS))


def with_values(preset: Preset, values: Mapping[str, Any]) -> Preset:
    """The preset with a trial's values."""
    sections = {"train": set(values) - SEARCHED_ANSWERS, "answer": SEARCHED_ANSWERS & set(values)}
    for section, names in sections.items():
        preset = replaced(preset, section, {name: values[name] for name in names})
    return preset


def replaced(preset: Preset, section: str, values: Mapping[str, Any]) -> Preset:
    """The preset with new, validated values in one section (such as the tuned settings)."""
    model: BaseModel = getattr(preset, section)
    try:
        changed = type(model).model_validate({**model.model_dump(), **values})
    except ValidationError as error:
        raise ParameterError(f"{section}: {_problems(error)}") from error
    return preset.model_copy(update={section: changed})
