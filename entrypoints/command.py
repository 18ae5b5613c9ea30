"""How a command of an entry point is made: its options from the settings' fields, its errors as one line.

Imports nothing heavy, so that `--help` answers within a second.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

import click
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from doctogres.errors import DoctogresError, ParameterError
from doctogres.presets import load_preset
from doctogres.settings import Preset

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult

FROM_PRESET: Final = "preset"  # the default of every setting: what the preset's YAML says


@dataclass(frozen=True)
class Parameter:
    """A parameter of an entry point: an option of its command and an entry of MLproject."""

    name: str
    default: str | int | bool
    help: str
    kind: click.ParamType[Any]

    @property
    def mlproject_type(self) -> str:
        return "float" if isinstance(self.kind, click.IntRange) else "string"


class SettingType(click.ParamType[Any]):
    """The value of a setting: `preset`, or what the settings' field allows."""

    name = "value"

    def __init__(self, setting: str, field: FieldInfo):
        self.setting = setting
        self.adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value is None or value == FROM_PRESET:
            return None
        try:
            return self.adapter.validate_python(value)
        except ValidationError as error:
            raise ParameterError(f"{self.setting}={value}: {error.errors()[0]['msg']}") from error


DATA: Final = Parameter("data", "data/demo", "cohort: a folder or a zip in the challenge's layout", click.STRING)
SLIDES: Final = Parameter("data", "", "folder or zip of the slides, where it moved since `clean`", click.STRING)
PRESET: Final = Parameter(
    "preset",
    "demo",
    "settings of all stages: demo (drawn slides), small (real slides, no accelerator), challenge (the full job), or the path of "
    "your own YAML file",
    click.STRING,
)
SEED: Final = Parameter("seed", 7, "seed of splits, weights, order and augmentation", click.IntRange(0, 2**31 - 1))
DECISIONS: Final = Parameter(
    "decisions",
    "",
    "CSV (slide_id,decision,reason) that overrides the machine; `clean` leaves one to fill in",
    click.STRING,
)
RERUN: Final = Parameter(
    "rerun", False, "repeat the stage although a finished run with the same fingerprint exists", click.BOOL
)
STRICT: Final = Parameter("strict", False, "exit non-zero when a single slide could not be used", click.BOOL)


def upstream(name: str, stage: str, default: str = "latest") -> Parameter:
    """A parameter that names the result of an earlier stage."""
    return Parameter(name, default, f"result of `{stage}`: a run id, a runs:/ address, a path, or latest", click.STRING)


def setting_parameters(sections: Sequence[str]) -> list[Parameter]:
    """A parameter for every scalar setting of these preset sections."""
    parameters = []
    for section in sections:
        model: Any = Preset.model_fields[section].annotation
        for name, field in model.model_fields.items():
            if name != "space":  # the search space is a table, not a value: it is changed in a preset
                parameters.append(
                    Parameter(name, FROM_PRESET, f"{section}: {field.description}", SettingType(name, field))
                )
    return parameters


class OneLineCommand(click.Command):
    """A command whose errors are one line that names the parameter and what is allowed."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs | {"standalone_mode": False})
        except click.NoSuchOption as error:
            known = ", ".join(sorted(parameter.name for parameter in self.params if parameter.name))
            self._fail(f"{error.option_name.lstrip('-')}: there is no such parameter; allowed are {known}", 2)
        except click.ClickException as error:
            self._fail(error.format_message(), 2)
        except ParameterError as error:
            self._fail(str(error), 2)
        except DoctogresError as error:
            self._fail(str(error), 1)
        except click.Abort:
            self._fail("interrupted", 130)
        except Exception as error:
            from mlflow.exceptions import MlflowException  # takes seconds, and what failed has paid them

            if not (isinstance(error, MlflowException) and "API request to" in str(error)):
                raise
            reason = " ".join(str(error).split())
            self._fail(f"the tracking server failed or refused: {reason}; ask its administrator", 1)

    def _fail(self, message: str, status: int) -> None:
        print(f"{self.name}: error: {message}", file=sys.stderr, flush=True)
        sys.exit(status)


def stage_command(
    name: str, *, parameters: Sequence[Parameter], sections: Sequence[str] = ()
) -> Callable[[Callable[..., "StageResult | None"]], OneLineCommand]:
    """Makes the command of an entry point.

    The function gets the parameters by name; where `preset` is among them it gets the loaded preset, with the given
    settings put in, instead of its name. Everything is checked before any work.

    Args:
        name: of the entry point.
        parameters: its own parameters.
        sections: the preset's sections whose settings can be given as parameters too.
    """
    settings = setting_parameters(sections)

    def decorate(function: Callable[..., "StageResult | None"]) -> OneLineCommand:
        def callback(**values: Any) -> None:
            overrides = {setting.name: values.pop(setting.name) for setting in settings}
            if "preset" in values:
                given = {key: value for key, value in overrides.items() if value is not None}
                values["preset"] = load_preset(values["preset"], given)
            from doctogres.training.processes import is_leader, process_count

            if process_count() > 1 and name != "train":
                raise ParameterError(f"{name} runs in one process; launch only `train` with torchrun or accelerate")
            if is_leader():
                from doctogres.tracking.store import connect

                connect()
            result = function(**values)
            if result is not None:
                print(result.to_json(), flush=True)

        return OneLineCommand(
            name, callback=callback, help=function.__doc__, params=[*map(_option, [*parameters, *settings])]
        )

    return decorate


def _option(parameter: Parameter) -> click.Option:
    return click.Option(
        [f"--{parameter.name}", parameter.name],
        default=parameter.default,
        type=parameter.kind,
        help=parameter.help,
        show_default=True,
    )


def entry_parameters(command: click.Command) -> list[Parameter]:
    """The parameters of a command, as MLproject must list them."""
    return [
        Parameter(str(option.name), option.default, str(option.help), option.type)  # type: ignore[arg-type]
        for option in command.params
        if isinstance(option, click.Option)
    ]
