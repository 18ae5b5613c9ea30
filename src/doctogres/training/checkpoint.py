"""The state of a training run after an epoch, so that a killed run resumes there with the same result."""

from pathlib import Path
from typing import Any

import torch

from doctogres.errors import DoctogresError
from doctogres.files import replacing


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes tensors, numbers, strings and containers of these."""
    with replacing(path) as partial, partial.open("wb") as file:
        torch.save(state, file)  # given a path, torch does not say why it cannot be written


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Reads what `save_checkpoint` wrote; no code in the file is executed.

    Raises:
        DoctogresError: the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise DoctogresError(f"{path}: damaged ({str(error).splitlines()[0]}); delete it and train again") from error
    return state
