"""`preset=auto`: the preset that a command works with, chosen once, before its work; and a warning of an unsuitable one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from doctogres.catalogue import Stage
from doctogres.disk import free_space, size_text
from doctogres.files import workspace
from doctogres.patches.manifest import Manifest
from doctogres.planning.choice import DEMO, SMALL, choose
from doctogres.planning.cohort import find_cohort, is_drawn
from doctogres.planning.machine import this_machine
from doctogres.presets import AUTO, PRESETS, load_preset
from doctogres.settings import Preset
from doctogres.slides.cohort import open_cohort, slide_root
from doctogres.slides.labels import column_names
from doctogres.slides.subgroups import AUTO as RECOGNISED
from doctogres.slides.table import CohortTable
from doctogres.tracking.store import connect
from doctogres.tracking.upstream import find_artifact

CHOSEN: Final = "auto"  # the parameter of a run that says what was chosen, and why
OF_SLIDES: Final = frozenset({"clean", "patch", "train"})  # preset sections whose settings depend on the slides


def chosen_preset(stage: Stage, values: Mapping[str, Any], overrides: Mapping[str, Any]) -> Preset:
    """The preset that suits the cohort that a command works on; prints which one, and why.

    Args:
        stage: of the command.
        values: its parameters.
        overrides: the settings given in place of the preset's own.

    Raises:
        WeightsError: the cohort needs pretrained weights, and they cannot be had.
        DoctogresError: the cohort cannot be read.
    """
    presets = [load_preset(name, overrides) for name in PRESETS]
    if all(getattr(presets[0], section) == getattr(one, section) for one in presets for section in stage.sections):
        return presets[0]  # `evaluate` and `register`: their settings are the same in all of them
    found = find_cohort(
        _root(values),
        ignore_columns=column_names(values.get("ignore_columns", "")),
        subgroups=values.get("subgroups", RECOGNISED),
        annotations=values.get("annotations", ""),
    )
    machine = this_machine(found.cohort, overrides, trains="train" in stage.sections)
    choice = choose(found.cohort, machine)
    free = size_text(free_space(workspace()))
    for line in (
        f"preset={AUTO}: {choice.preset}, because {choice.because}",
        f"  cohort   {found.cohort}",
        f"  machine  {machine}{', ' * bool(machine.accelerator)}{machine.accelerator}, {free} free on the disk",
    ):
        print(line, flush=True)
    preset = load_preset(choice.preset, overrides)
    return preset.recording({**preset.given, CHOSEN: f"{choice.preset}, because {choice.because}"})


def warn_of_demo(stage: Stage, values: Mapping[str, Any], preset: Preset) -> None:
    """Prints a line if a command uses the demo's settings, which are the default, for slides that `demo_data` did not draw.

    Nothing is said of slides that are no longer there: their patches may be enough for the command.

    Raises:
        DoctogresError: the cohort, or what an earlier stage wrote, cannot be read.
    """
    if preset.given.get("preset") != DEMO or not OF_SLIDES & {*stage.sections}:
        return
    root = _seen(values)
    if root.is_dir() and not is_drawn(root):
        print(
            f"{stage.name}: preset {DEMO} suits only the synthetic slides of demo_data; for real slides give preset={SMALL} "
            "to every stage (docs/training.md)",
            flush=True,
        )


def _root(values: Mapping[str, Any]) -> Path:
    """The folder of the slides, which is there."""
    return slide_root(_seen(values), "")


def _seen(values: Mapping[str, Any]) -> Path:
    """The folder of the slides: of `data`, or where an earlier stage saw them."""
    if data := values.get("data"):
        return open_cohort(data, workspace=workspace())
    name, stage, artifact = ("cohort", "clean", "cohort") if "cohort" in values else ("patches", "patch", "patches")
    if values.get("shard") and not Path(values[name]).exists():
        connect()  # no other share needs the store
    path = find_artifact(values[name], stage=stage, name=artifact).path
    return (CohortTable if name == "cohort" else Manifest).read(path).root
