"""The stages: each resolves what it is given, calls the library, and leaves one MLflow run."""

import os
from pathlib import Path
from typing import Final

WORKSPACE_VARIABLE: Final = "DOCTOGRES_WORKSPACE"


def workspace() -> Path:
    """Where pixel caches, unpacked zips and the study's database lie: `.doctogres`, or what DOCTOGRES_WORKSPACE says.

    Everything in it can be deleted; it is made again from the slides.
    """
    return Path(os.environ.get(WORKSPACE_VARIABLE) or ".doctogres").resolve()
