"""The fingerprint that decides whether a finished run can be reused."""

from collections.abc import Mapping
from typing import Any

from doctogres.encoders import files_behind
from doctogres.files import digest_of, file_digest
from doctogres.settings import listed
from doctogres.tracking.sources import code_digest

ENCODERS = ("backbone", "weights")


def fingerprint(module: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """A digest of everything the result depends on: the code, the settings, and the content of the inputs.

    A weights file with its configuration, and a folder given as `backbone`, are identified by content, not by path or address.

    Args:
        module: the module that produces the result, such as `doctogres.stages.clean`.
        settings: name -> value.
        inputs: name -> digest.
    """
    content = {name: _content(name.rpartition(".")[2], value) for name, value in settings.items()}
    return digest_of(code_digest(module), content, dict(inputs))


def _content(name: str, value: Any) -> Any:
    """A setting's value, with the digest of its files in the place of what names files."""
    if name == "space":  # a study goes on only with the same choices, however they are written
        return value, {one: _content(one, values["choices"]) for one, values in value.items() if one in ENCODERS}
    if name not in ENCODERS:
        return value
    return [_entry(name, entry) for given in ([value] if isinstance(value, str) else value) for entry in listed(given)]


def _entry(name: str, entry: str) -> str:
    files = files_behind(name, entry)
    return digest_of(*map(file_digest, files)) if files else entry
