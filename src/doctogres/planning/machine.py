"""What is known of the machine, asked only where the choice depends on it: PyTorch alone takes seconds to load."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from doctogres.engine import default_workers
from doctogres.errors import WeightsError
from doctogres.model.weights import check_all_weights
from doctogres.planning.choice import CHALLENGE, MANY_GROUPS, SMALL, Cohort, Machine
from doctogres.presets import load_preset

DEVICES: Final = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # there where PyTorch may find a GPU


def this_machine(cohort: Cohort, overrides: Mapping[str, Any], *, trains: bool = True) -> Machine:
    """This machine, as far as the choice for the cohort depends on it.

    Args:
        cohort: for which a preset is chosen.
        overrides: the settings given in place of the preset's own.
        trains: whether the command needs weights; `clean` and `patch` could not be given other ones.
    """
    import psutil

    name, memory = "", 0
    if not cohort.drawn and cohort.groups >= MANY_GROUPS and overrides.get("device") != "cpu":
        name, memory = accelerator()
    needed = trains and bool(cohort.classes) and not cohort.drawn
    asked = [SMALL] * needed + [CHALLENGE] * bool(name)
    missing = {preset: reason for preset in asked if (reason := _missing(preset, overrides))}
    return Machine(default_workers(), psutil.virtual_memory().total, name, memory, missing)


def _missing(preset: str, overrides: Mapping[str, Any]) -> str:
    """Why a preset's weights cannot be had; empty if they can."""
    try:
        check_all_weights(load_preset(preset, overrides))
    except WeightsError as error:
        return str(error)
    return ""


def accelerator() -> tuple[str, int]:
    """Name and bytes of the device that would train; empty and 0 without one, and 0 where the memory is not known."""
    if sys.platform != "darwin" and not any(Path(device).exists() for device in DEVICES):
        return "", 0
    import torch

    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        return device.name, device.total_memory
    return ("the Apple GPU", 0) if torch.backends.mps.is_available() else ("", 0)
