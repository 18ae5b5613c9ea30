"""What decides whether a finished run can stand for a new one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from doctogres.files import digest_of, file_digest
from doctogres.tracking.sources import code_digest


def fingerprint(module: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Names all that a result depends on: the code, the settings, and the inputs' content.

    A weights file counts by its content, wherever it lies.

    Args:
        module: whose code makes the result, as in `doctogres.stages.clean`.
        settings: name -> value.
        inputs: name -> digest.
    """
    content = {name: _weights_digest(value) if _is_weights(name) else value for name, value in settings.items()}
    return digest_of(code_digest(module), content, dict(inputs))


def _is_weights(name: str) -> bool:
    return name.rpartition(".")[2] == "weights"


def _weights_digest(weights: str) -> str:
    """A file's content, or the word (`imagenet`, `none`)."""
    return file_digest(Path(weights)) if Path(weights).is_file() else weights
