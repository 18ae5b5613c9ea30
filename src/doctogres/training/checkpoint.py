"""The state of a training after an epoch, so that a killed one goes on there and ends as if it had not been killed."""

import os
from pathlib import Path
from typing import Any

import torch

from doctogres.errors import DoctogresError


def save_checkpoint(state: dict[str, Any], path: Path) -> None:
    """Writes tensors, numbers, texts and containers of them, under a temporary name, then renames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        torch.save(state, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What `save_checkpoint` wrote; nothing in the file is executed.

    Raises:
        DoctogresError: the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise DoctogresError(f"{path}: damaged ({str(error).splitlines()[0]}); delete it and train again") from error
    return state
