"""Which preset suits a cohort on a machine. Says nothing of the moment: the same cohort on the same machine gets the same one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from doctogres.disk import size_text
from doctogres.errors import WeightsError

DEMO: Final = "demo"
SMALL: Final = "small"
CHALLENGE: Final = "challenge"
MANY_GROUPS: Final = 400  # from here on a large network is fine-tuned; a rule of thumb, which no benchmark has tested
LEAST_ACCELERATOR: Final = 4 * 2**30  # bytes: a training step of ConvNeXt-Tiny on two patches needs about half of it


@dataclass(frozen=True)
class Cohort:
    """What the choice depends on.

    Attributes:
        classes: label -> number of training slides that have picture, mask and label.
        groups: number of patients of these slides; a slide without one is a patient of its own.
        test: number of slides to predict.
        drawn: whether `demo_data` drew them.
    """

    classes: Mapping[str, int]
    groups: int
    test: int
    drawn: bool

    @property
    def slides(self) -> int:
        """Number of training slides."""
        return sum(self.classes.values())

    def __str__(self) -> str:
        if not self.classes:
            return f"{self.test} slides to predict"
        few, most = min(self.classes.values()), max(self.classes.values())
        each = f"{few}" if few == most else f"{few} to {most}"
        told = f"{self.slides} slides of {len(self.classes)} classes ({each} each) and {self.groups} patients"
        return f"{told}; {self.test} test slides"


@dataclass(frozen=True)
class Machine:
    """What the choice depends on, and what is said of the machine.

    Attributes:
        cores: that this process may use.
        memory: bytes, used or not.
        accelerator: name of the device that would train; empty without one, or where the choice does not depend on it.
        accelerator_memory: its bytes; 0 if they are not known.
        missing: preset -> why its pretrained weights cannot be had; of those presets that were asked about.
    """

    cores: int
    memory: int
    accelerator: str
    accelerator_memory: int
    missing: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.cores} cores, {size_text(self.memory)} of memory"


@dataclass(frozen=True)
class Choice:
    """A preset, and why it was chosen, in words."""

    preset: str
    because: str


def choose(cohort: Cohort, machine: Machine) -> Choice:
    """The preset for a cohort on a machine.

    Raises:
        WeightsError: the slides are real, and no preset's pretrained weights can be had.
    """
    if cohort.drawn:
        return Choice(
            DEMO,
            "demo_data made these synthetic slides, for which a small network without pretrained weights is enough",
        )
    if not cohort.classes:
        return Choice(SMALL, "nothing is trained")
    against = _against_challenge(cohort, machine)
    if not against:
        why = f"{cohort.groups} patients are enough, by a rule of thumb, to fine-tune ConvNeXt-Tiny, and {machine.accelerator} can do it"
        return Choice(CHALLENGE, why)
    if missing := machine.missing.get(SMALL):
        raise WeightsError(
            f"preset=auto: {SMALL} suits this cohort, but it needs pretrained weights, because {cohort.slides} slides are too few "
            f"to train a network from random ones: {missing}"
        )
    return Choice(
        SMALL, f"{against}; a linear head on the frozen features of a pretrained network is fitted in minutes"
    )


def _against_challenge(cohort: Cohort, machine: Machine) -> str:
    """Why no large network is fine-tuned; empty if nothing speaks against it."""
    if cohort.groups < MANY_GROUPS:
        return f"fewer than {MANY_GROUPS} patients are, by a rule of thumb, too few to fine-tune a large network"
    if not machine.accelerator:
        return "without an accelerator, fine-tuning a large network takes days"
    if 0 < machine.accelerator_memory < LEAST_ACCELERATOR:
        return f"{machine.accelerator} has only {size_text(machine.accelerator_memory)} of memory"
    return f"{CHALLENGE}: {machine.missing[CHALLENGE]}" if CHALLENGE in machine.missing else ""
