"""Files of ours: where they lie, and the digests that name their content."""

import hashlib
import json
import os
from pathlib import Path
from typing import Final

from doctogres.errors import CohortError

WORKSPACE_VARIABLE: Final = "DOCTOGRES_WORKSPACE"


def workspace() -> Path:
    """Where pixel caches, unpacked zips and the study's database lie: `.doctogres`, or what DOCTOGRES_WORKSPACE says.

    Everything in it can be deleted; it is made again from the slides.
    """
    return Path(os.environ.get(WORKSPACE_VARIABLE) or ".doctogres").resolve()


def file_hash(path: Path, algorithm: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        raise CohortError(f"{path} cannot be read: {error.strerror or error}") from error


def digest_of(*parts: object) -> str:
    """A short stable digest of JSON-able values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """A short digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
