"""The paths among a command's parameters, checked before anything heavy is imported. Imports nothing heavy."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from doctogres.catalogue import LATEST, MODEL, RUN_ID, Stage
from doctogres.errors import DoctogresError, ParameterError, UpstreamError
from doctogres.files import WORKSPACE_VARIABLE, closed_above, looked_for, workspace
from doctogres.model.weights import NONE, check_local_weights
from doctogres.remote import check_usable, is_address
from doctogres.settings import Preset, listed
from doctogres.slides.layout import check_path

SQLITE: Final = "sqlite:///"
JSON: Final = "json"  # the option for the result
ADDRESSABLE: Final = (
    "data",
    "decisions",
    "split",
    "answers",
    "cohort",
    "patches",
    "params",
    "evaluation",
    MODEL,
    "output",
    JSON,
)


@contextmanager
def naming_closed(values: Mapping[str, Any]) -> Iterator[None]:
    """Turns the refusal of a path in the block, for want of permission, into an error that says whose path it is.

    Args:
        values: the parameters, by name.

    Raises:
        ParameterError: names the parameter, the path and the remedy.
        DoctogresError: the same of a path that no parameter names.
    """
    try:
        yield
    except PermissionError as error:
        if not isinstance(error.filename, str):  # no path, but a socket or a process
            raise
        closed = Path(error.filename).absolute()
        refused = f"{closed} is closed to you ({error.strerror}); ask its owner for permission, or give another path"
        for name, value in {**values, WORKSPACE_VARIABLE: str(workspace())}.items():
            if value and isinstance(value, str) and closed.is_relative_to(Path(os.path.expanduser(value)).absolute()):
                raise ParameterError(f"{name}={value}: {refused}") from error
        raise DoctogresError(refused) from error


def check_paths(stage: Stage, values: Mapping[str, Any]) -> None:
    """Refuses a path that the stage could not read or write.

    Args:
        stage: its row in the catalogue.
        values: its parameters, with the preset loaded.

    Raises:
        DoctogresError: names the parameter, the path that was tried and the remedy.
    """
    addressed = {name for name in ADDRESSABLE if is_address(values.get(name) or "")}
    for name in sorted(addressed):
        check_usable(name, values[name])
    values = {name: value for name, value in values.items() if name not in addressed}
    if values.get("data"):
        check_path(values["data"])
    if values.get("decisions") and not Path(values["decisions"]).is_file():
        raise ParameterError(
            f"decisions={values['decisions']} cannot be opened: {looked_for(values['decisions'])}; give the path of a CSV"
        )
    for name in {*(given.name for given in stage.inputs), MODEL} & values.keys():
        given = values[name]
        for one in listed(given) if name == MODEL and not Path(given).exists() else [given]:
            _check_result(name, one)
    if values.get("output") and stage.name == "export":
        _check_creatable("output", Path(values["output"]))
    elif values.get("output"):
        _check_output(Path(values["output"]))
    if is_address(values.get("target") or ""):
        raise ParameterError(
            f"target={values['target']}: the cohort is drawn on this machine; give the path of a folder"
        )
    if "target" in values:
        _check_creatable("target", Path(values["target"]))
    if values.get(JSON):
        _check_json(Path(values[JSON]))
    if str(values.get("storage", "")).startswith(SQLITE):
        _check_creatable("storage", Path(values["storage"].removeprefix(SQLITE)).parent)
    _check_creatable(WORKSPACE_VARIABLE, workspace())
    preset = values.get("preset")
    if isinstance(preset, Preset) and "train" in stage.sections:
        for encoder in preset.train.encoders:
            check_local_weights(*encoder)


def _check_result(name: str, value: str) -> None:
    """Refuses what is neither a run, an address nor an existing path."""
    if value in (LATEST, NONE) or RUN_ID.fullmatch(value) or value.startswith(("runs:/", "models:/")):
        return
    if not Path(value).exists():
        raise UpstreamError(
            f"{name}={value}: {looked_for(value)}; give a run id, a runs:/ or models:/ address, an existing path, or {LATEST}"
        )


def _check_output(path: Path) -> None:
    """Refuses a file that could not be written at the end."""
    folder = path.absolute().parent
    if path.is_dir():
        raise ParameterError(f"output={path}: this is a folder; name a file in it, such as {path / 'submission.csv'}")
    if not folder.is_dir():
        raise ParameterError(
            f"output={path}: there is no folder {folder}; make it, or name a file in a folder that exists"
        )
    if not os.access(folder, os.W_OK):
        raise ParameterError(f"output={path}: nothing can be written in {folder}; name a file in another folder")


def _check_json(path: Path) -> None:
    """Refuses a file that could not be written at the end; its folder need not be there."""
    if path.is_dir():
        raise ParameterError(f"{JSON}={path}: this is a folder; name a file in it, such as {path / 'result.json'}")
    _check_creatable(JSON, path.parent)


def _check_creatable(name: str, folder: Path) -> None:
    """Refuses a folder that can neither be written in nor be made."""
    if above := closed_above(folder):
        raise ParameterError(f"{name}={folder}: no folder can be made or written in {above}; give another one")
