"""The fingerprint that decides whether a finished run can be reused."""

from collections.abc import Mapping
from typing import Any

from doctogres.encoders import local_files
from doctogres.files import digest_of, file_digest
from doctogres.tracking.sources import code_digest


def fingerprint(module: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """A digest of everything the result depends on: the code, the settings, and the content of the inputs.

    A weights file with its configuration, and a folder given as `backbone`, are identified by content, not by path.

    Args:
        module: the module that produces the result, such as `doctogres.stages.clean`.
        settings: name -> value.
        inputs: name -> digest.
    """
    content = {name: _content(name.rpartition(".")[2], value) for name, value in settings.items()}
    return digest_of(code_digest(module), content, dict(inputs))


def _content(name: str, value: Any) -> Any:
    """The digest of the files that a setting names, otherwise its value."""
    files = local_files(name, value) if name in ("backbone", "weights") else []
    return digest_of(*map(file_digest, files)) if files else value
