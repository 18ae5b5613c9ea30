"""Builds the command of an entry point: options from the settings' fields, errors as one line.

Imports nothing heavy, so that `--help` answers within a second.
"""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NoReturn, get_args, get_origin

import click
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from doctogres.addresses import check_address, check_environment, masked
from doctogres.catalogue import ALARMED, ALARMS, JOIN, STAGES, Input, Parameter
from doctogres.disk import naming_full_disk
from doctogres.errors import DoctogresError, MissingSharesError, ParameterError, show_error
from doctogres.files import keep_private, sweep, temporary_files, temporary_folder, workspace
from doctogres.launcher import RUN_VARIABLE, Launch, find_launch, typed_command
from doctogres.presets import AUTO, PRESETS, load_preset
from doctogres.remote import send
from doctogres.settings import Preset

from .interruption import held, interruptible
from .outages import outage
from .paths import JSON, check_paths, naming_closed

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult

FAULT: Final = "This is a fault of doctogres, not of your data or settings: please report it with the lines above"
FROM_PRESET: Final = "preset"  # the default of every setting: its value in the preset


class SettingType(click.ParamType[Any]):
    """The value of a setting: `preset`, or any value the settings' field allows; `choices` has them where they are few."""

    name = "value"

    def __init__(self, setting: str, field: FieldInfo):
        self.setting = setting
        self.adapter: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, field])  # type: ignore[arg-type]
        self.choices: tuple[str, ...] = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str | None:
        """The values as `--help` shows those of other parameters."""
        return f"[{'|'.join(self.choices)}]" if self.choices else super().get_metavar(param, ctx)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value is None or value == FROM_PRESET:
            return None
        try:
            return self.adapter.validate_python(value)
        except ValidationError as error:
            raise ParameterError(f"{self.setting}={value}: {error.errors()[0]['msg']}") from error


def setting_options(sections: Sequence[str]) -> list[click.Option]:
    """An option for every scalar setting of these preset sections."""
    options = []
    for section in sections:
        model: Any = Preset.model_fields[section].annotation
        for name, field in model.model_fields.items():
            if name != "space":  # the search space is a table, not a single value: change it in a preset
                what = f"{section}: {field.description}"
                options.append(_option(name, FROM_PRESET, what, SettingType(name, field)))
    return options


def parameter_option(given: Parameter | Input) -> click.Option:
    """The option of a parameter that is not a preset setting."""
    parameter = given.parameter if isinstance(given, Input) else given
    kind: click.ParamType[Any] = click.STRING
    if parameter.choices:
        kind = click.Choice(parameter.choices)
    elif isinstance(parameter.default, bool):
        kind = click.BOOL
    elif isinstance(parameter.default, int):
        kind = click.IntRange(parameter.least, parameter.most)
    return _option(parameter.name, parameter.default, parameter.help, kind)


def _option(name: str, default: str | int | bool, what: str, kind: click.ParamType[Any]) -> click.Option:
    return click.Option([f"--{name}", name], default=default, type=kind, help=what, show_default=True)


JSON_OPTION: Final = _option(
    JSON,
    "",
    "file (path or address) for the result as JSON, which is otherwise printed before the summary",
    click.STRING,
)


class OneLineCommand(click.Command):
    """A command that prints errors as one line naming the parameter and what is allowed."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        launch = find_launch()
        if launch and (folder := launch.folder):
            os.chdir(folder)
        with interruptible(launch):
            return self._main(launch, *args, **kwargs)

    def _main(self, launch: Launch | None, args: Sequence[str] | None = None, *others: Any, **kwargs: Any) -> Any:
        try:
            _refuse_passwords(sys.argv[1:] if args is None else args)  # before anything repeats a word of it
            return super().main(args, *others, **kwargs | {"standalone_mode": False})
        except click.NoSuchOption as error:
            known = ", ".join(sorted(parameter.name for parameter in self.params if parameter.name))
            self._fail(f"{error.option_name.lstrip('-')}: no such parameter; allowed are {known}", 2)
        except click.ClickException as error:
            self._fail(error.format_message(), 2)
        except ParameterError as error:
            self._fail(str(error), 2)
        except MissingSharesError as error:
            share = error.shares[0]
            again = re.sub(f"(shard[ =]){JOIN}", rf"\g<1>{share}", typed_command(launch, sys.argv))
            self._fail(f"{error}. To make share {share}, type: {again}", 1)
        except DoctogresError as error:
            self._fail(str(error), 1)
        except click.Abort as abort:
            if not isinstance(abort.__cause__, KeyboardInterrupt):
                raise
            self._end_interrupted(launch)
        except Exception as error:  # noqa: BLE001 - nothing comes after it, and a bug is shown with its traceback
            if sentence := outage(error):
                self._fail(sentence, 1)
            self._fail(f"{type(error).__name__}: {error}. {FAULT}", 1, fault=True)

    def invoke(self, ctx: click.Context) -> Any:
        with naming_closed(ctx.params):
            return super().invoke(ctx)

    def _end_interrupted(self, launch: Launch | None) -> None:
        stage = STAGES.get(str(self.name))
        kept = (stage and stage.kept) or "finished stages; this one starts again"
        again = typed_command(launch, sys.argv)
        # Before the shell's prompt returns.
        show_error(str(self.name), masked(f"interrupted. Kept: {kept}. To continue, type: {again}"))
        from doctogres.training.processes import is_leader

        if launch and is_leader():
            from doctogres.tracking.launched import end_launch

            end_launch(launch)
        sys.exit(130)

    def _fail(self, message: str, status: int, *, fault: bool = False) -> NoReturn:
        show_error(str(self.name), masked(message), fault=fault)
        sys.exit(status)


def _refuse_passwords(words: Sequence[str]) -> None:
    """Refuses passwords on the command line, and hides one that `mlflow run` has recorded as a parameter."""
    try:
        for before, word in pairwise(["", *words]):
            name, _, value = word.partition("=") if word.startswith("--") else (before, "", word)
            check_address(name.lstrip("-"), value)
    except ParameterError as error:
        if launched := os.environ.get(RUN_VARIABLE):
            from doctogres.tracking.recorded import hide_passwords

            if not hide_passwords(launched):
                raise ParameterError(f"{error}; the store keeps the old one in run {launched}") from None
        raise


def _written_folders() -> list[Path]:
    """The workspace, and where temporary files and a store in a file lie; known before MLflow is imported."""
    from doctogres.tracking.fresh import database

    store = database()
    return [workspace(), temporary_folder(), *([store.parent] if store else [])]


def _begin() -> None:
    """Connects to the tracking store, and clears away what killed commands left."""
    with held():
        from doctogres.tracking.interrupted import end_abandoned
        from doctogres.tracking.launched import claim_launch
        from doctogres.tracking.store import connect

    connect()
    if launch := find_launch():
        claim_launch(launch)
    ended = end_abandoned()
    swept = sum(map(sweep, [Path(tempfile.gettempdir()).parent, workspace(), *workspace().glob("*/")]))
    if ended or swept:
        print(
            f"cleared away after killed commands: {ended} open runs, {swept} unfinished or temporary files", flush=True
        )


def _print_result(result: "StageResult", json_file: str, temporary: Path) -> None:
    """The result as JSON for programs, on a line or in a file; then, at the end of the terminal, what people read."""
    if json_file:
        (written := temporary / "result.json").write_text(result.to_json() + "\n", encoding="utf-8")
        send(written, json_file)
    else:
        print(result.to_json(), flush=True)
    print(result.for_people(), flush=True)


def stage_command(name: str) -> Callable[[Callable[..., "StageResult | None"]], OneLineCommand]:
    """Builds the command of an entry point from its row in the catalogue.

    The decorated function gets the parameters by name, with `preset` replaced by the loaded preset including any settings
    given on the command line. Everything is checked before any work starts.
    """
    stage = STAGES[name]
    settings = setting_options(stage.sections)

    def decorate(function: Callable[..., "StageResult | None"]) -> OneLineCommand:
        def callback(**values: Any) -> None:
            json_file = values.pop(JSON)
            keep_private()
            check_environment()
            overrides = {str(setting.name): values.pop(str(setting.name)) for setting in settings}
            given = {key: value for key, value in overrides.items() if value is not None}
            chosen_later = values.get("preset") == AUTO
            if "preset" in values:
                values["preset"] = load_preset(PRESETS[0] if chosen_later else values["preset"], given)
            from doctogres.training.processes import is_leader, process_count

            if process_count() > 1 and name != "train":
                raise ParameterError(f"{name} runs in a single process; use torchrun or accelerate only for `train`")
            if process_count() > 1 and chosen_later:
                raise ParameterError(f"preset={AUTO} chooses in a single process; give one of {', '.join(PRESETS)}")
            check_paths(stage, values | {JSON: json_file})  # before MLflow is loaded, which takes seconds
            with naming_full_disk(*_written_folders()), temporary_files() as temporary:
                if is_leader() and values.get("shard", "") in ("", JOIN):  # a share needs no store
                    _begin()
                if chosen_later:
                    from doctogres.planning.auto import chosen_preset

                    values["preset"] = chosen_preset(stage, values, given)
                elif "preset" in values and is_leader():
                    from doctogres.planning.auto import warn_of_demo

                    warn_of_demo(stage, values, values["preset"])
                result = function(**values)
                if result is not None:
                    _print_result(result, json_file, temporary)
            if result is not None and result.metrics.get(ALARMS):
                sys.exit(ALARMED)

        params: list[click.Parameter] = [*map(parameter_option, stage.parameters), *settings, JSON_OPTION]
        return OneLineCommand(name, callback=callback, help=stage.purpose, params=params)

    return decorate
