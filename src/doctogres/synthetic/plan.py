"""The plan of a cohort before anything is drawn: splits, labels, file numbers and contaminated slides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

# The challenge's genuine training slides per class.
CHALLENGE_COUNTS: Final = {"Luminal A": 158, "Luminal B": 204, "HER2(+)": 150, "Triple negative": 69}
LABELS: Final = tuple(CHALLENGE_COUNTS)
TEST_SHARE: Final = 0.20
CARTOON_SHARE: Final = 60 / 691
SPLAT_SHARE: Final = 50 / 691
FEWEST_SLIDES: Final = 12
FEWEST_PER_CLASS: Final = 2

Kind = Literal["genuine", "shrek", "slime"]
Split = Literal["train", "test"]


@dataclass(frozen=True)
class SlidePlan:
    """One file pair of the cohort.

    Attributes:
        split: The split (and folder) of the slide.
        number: File number inside the split, from 0.
        label: The subtype written in the split's table.
        kind: `genuine`, or the kind of contamination.
        source: Index of the underlying genuine slide, over both splits; its own index for a genuine slide.
        twin: File name of the genuine slide that a contaminated one was made from; empty for a genuine slide.
    """

    split: Split
    number: int
    label: str
    kind: Kind
    source: int
    twin: str = ""

    @property
    def image_name(self) -> str:
        """File name of the picture."""
        return f"img_{self.number:04d}.png"

    @property
    def mask_name(self) -> str:
        """File name of the mask."""
        return f"mask_{self.number:04d}.png"


def apportion(total: int, weights: Sequence[float], *, at_least: int = 0) -> list[int]:
    """Divide `total` in proportion to `weights` into integers that sum to `total`, none below `at_least`.

    Each unit after the guaranteed ones goes to the class furthest below its exact quota.

    Raises:
        ValueError: `total` is too small for `at_least` each.
    """
    if total < at_least * len(weights):
        raise ValueError(
            f"{total} slides are too few for {at_least} slides in each of {len(weights)} classes; give a larger size"
        )
    quota = np.asarray(weights, dtype=np.float64) / sum(weights) * total
    seats = np.full(len(weights), at_least)
    for _ in range(total - int(seats.sum())):
        seats[int(np.argmax(quota - seats))] += 1
    return [int(n) for n in seats]


def plan_cohort(slides: int, seed: int) -> tuple[SlidePlan, ...]:
    """Decide every file of a cohort, by split and then file number.

    Args:
        slides: Total number of training and test slides, including contaminated copies.
        seed: The same seed gives the same plan.

    Raises:
        ValueError: `slides` is too small for every class and one slide of each kind of contamination.
    """
    if slides < FEWEST_SLIDES:
        raise ValueError(f"a cohort of {slides} slides is too small; give a size of at least {FEWEST_SLIDES}")
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    test = round(TEST_SHARE * slides)
    train = slides - test
    cartoons = max(1, round(CARTOON_SHARE * train))
    splats = max(1, round(SPLAT_SHARE * train))
    genuine = train - cartoons - splats

    labels = _shuffled_labels(rng, genuine, at_least=FEWEST_PER_CLASS)
    numbers = [int(n) for n in rng.permutation(train)]
    clean = [SlidePlan("train", numbers[i], labels[i], "genuine", i) for i in range(genuine)]
    # No slide is copied twice, so that every twin group is a pair, as in the challenge.
    copied = [int(i) for i in rng.choice(genuine, size=cartoons + splats, replace=False)]
    spoiled: list[SlidePlan] = []
    for rank, (source, number) in enumerate(zip(copied, numbers[genuine:], strict=True)):
        if rank < cartoons:
            label = LABELS[int(rng.integers(len(LABELS)))]
            # In every other pair the cartoon has the lower number, so that "keep the lower number" does not clean.
            low, high = sorted((clean[source].number, number))
            number, genuine_number = (low, high) if rank % 2 == 0 else (high, low)
            clean[source] = replace(clean[source], number=genuine_number)
            kind: Kind = "shrek"
        else:
            label, kind = clean[source].label, "slime"
        spoiled.append(SlidePlan("train", number, label, kind, source, clean[source].image_name))

    hidden = _shuffled_labels(rng, test)
    held_out = [SlidePlan("test", i, label, "genuine", genuine + i) for i, label in enumerate(hidden)]
    return (*sorted(clean + spoiled, key=lambda slide: slide.number), *held_out)


def _shuffled_labels(rng: np.random.Generator, total: int, *, at_least: int = 0) -> list[str]:
    """`total` labels in the challenge's proportions, in random order."""
    seats = apportion(total, list(CHALLENGE_COUNTS.values()), at_least=at_least)
    ordered = [label for label, n in zip(LABELS, seats, strict=True) for _ in range(n)]
    return [ordered[int(i)] for i in rng.permutation(total)]
