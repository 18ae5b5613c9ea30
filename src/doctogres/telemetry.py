"""Usage statistics are off: the variables that say so to the tools, set before these are imported.

`entrypoints/telemetry.pth`, which `make setup` puts into `.venv`, sets the same for tools that start without our code.
"""

import os
from typing import Final

OFF: Final = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def switch_off() -> None:
    """Sets the variables for this process and those that it starts; whoever has set one already is not overruled."""
    for name, value in OFF.items():
        os.environ.setdefault(name, value)
