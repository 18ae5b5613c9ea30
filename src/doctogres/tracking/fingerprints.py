"""What decides whether a finished run can stand for a new one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from doctogres.files import digest_of, file_digest

# Raised by hand when a stage's code gives another result for the same input: its finished runs are then repeated.
STAGE_VERSIONS: Final = {
    "demo_data": 1,
    "clean": 2,
    "patch": 1,
    "tune": 2,
    "train": 4,
    "evaluate": 2,
    "register": 2,
    "predict": 2,
    "ablate": 1,
}


def weights_digest(weights: str) -> str:
    """What stands for the setting `weights` in a fingerprint: a file's content, or the word (`imagenet`, `none`)."""
    return file_digest(Path(weights)) if Path(weights).is_file() else weights


def fingerprint(stage: str, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """What decides whether a finished run can stand for this one: settings, inputs' content, the stage's version."""
    return digest_of(stage, STAGE_VERSIONS[stage], dict(settings), dict(inputs))
