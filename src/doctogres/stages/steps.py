"""The stages of `main`, one after the other: which one begins, and how long it and the rest will take."""

import time
from collections.abc import Callable, Mapping, Sequence

from doctogres.progress import durations
from doctogres.tracking.runs import StageResult


class Steps:
    """Runs the stages and measures them.

    Args:
        stages: their names, in order.
        promised: recipe -> stage -> the seconds that it was said to take; empty if nothing was said.
    """

    def __init__(self, stages: Sequence[str], promised: Mapping[str, Mapping[str, float]]):
        self.stages, self.promised, self.expected = stages, promised, promised
        self.taken: dict[str, float] = {}

    def __call__(self, stage: str, work: Callable[[], StageResult]) -> StageResult:
        """Says which stage begins, and does its work."""
        print(f"main: {self.heading(stage)}", flush=True)
        started = time.perf_counter()
        result = work()
        self.taken[stage] = time.perf_counter() - started
        return result

    def choose(self, recipe: str) -> None:
        """Expects what was promised for this recipe, now that it is known."""
        self.expected = {recipe: self.promised[recipe]} if recipe in self.promised else self.promised

    def heading(self, stage: str) -> str:
        """`stage 2 of 7: patch, about 00:12; about 03:10 until the end`."""
        place = self.stages.index(stage)
        text = f"stage {place + 1} of {len(self.stages)}: {stage}"
        if not self.expected:
            return text
        own = durations(of[stage] for of in self.expected.values())
        left = durations(sum(of[later] for later in self.stages[place:]) for of in self.expected.values())
        return f"{text}, about {own}; about {left} until the end"

    @property
    def metrics(self) -> dict[str, float]:
        """The seconds that were promised, for the recipe that was chosen, and those that were taken, if any were promised."""
        if not self.promised:
            return {}
        recipe = next(iter(self.expected.values()))
        kinds = {"promised": recipe, "taken": self.taken}
        return {f"{kind}/{stage}": round(value, 1) for kind, of in kinds.items() for stage, value in of.items()}
