"""The fingerprint that decides whether a finished run can be reused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from doctogres.files import digest_of, file_digest
from doctogres.tracking.sources import code_digest


def fingerprint(module: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """A digest of everything the result depends on: the code, the settings, and the content of the inputs.

    A weights file is identified by its content, not its path.

    Args:
        module: the module that produces the result, such as `doctogres.stages.clean`.
        settings: name -> value.
        inputs: name -> digest.
    """
    content = {name: _weights_digest(value) if _is_weights(name) else value for name, value in settings.items()}
    return digest_of(code_digest(module), content, dict(inputs))


def _is_weights(name: str) -> bool:
    return name.rpartition(".")[2] == "weights"


def _weights_digest(weights: str) -> str:
    """The digest of a file, or the keyword (`imagenet`, `none`)."""
    return file_digest(Path(weights)) if Path(weights).is_file() else weights
