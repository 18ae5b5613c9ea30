"""Progress of a loop: a bar on a terminal, plain lines elsewhere. Loops within loops say where they are: `place`."""

import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from tqdm import tqdm

LONG: Final = 5.0  # seconds; a loop that takes this long prints lines, and a last one when it ends
LINE_INTERVAL: Final = 10.0  # seconds between plain lines
RECENT: Final = 10.0  # seconds, and at least RECENT_STEPS steps, over which the rate is measured
RECENT_STEPS: Final = 5
Step = TypeVar("Step")
_places: list[str] = []  # of the loops around, outermost first


@contextmanager
def place(name: str) -> Iterator[None]:
    """Lines within the block begin with this place, after those of the blocks around it: `tune: trial 3 of 20, fold 2 of 5`.

    Args:
        name: such as `fold 2 of 5`, or `tune:` with a colon for what the places within it belong to; empty for none.
    """
    _places.append(name)
    try:
        yield
    finally:
        _places.pop()


class Reporter:
    """Call it with (done, total) before the first step of a loop and after every step.

    Rates are measured from the first call, so that steps done by an earlier process do not count. The reporter closes
    itself when all steps are done. Use a `with` block for a loop that may end early, so that the bar is removed and the
    last line is printed. A total of 0 means unknown.
    """

    def __init__(self, label: str, unit: str):
        self.label, self.unit, self.done, self.total = label, unit, 0, 0
        self.started = monotonic()
        self.next_line = self.started + LONG
        self.first: tuple[float, int] | None = None  # time and number of steps done at the first call
        self.steps: deque[tuple[float, int]] = deque()  # the recent calls, a second apart or more
        self.terminal, self.closed = sys.stderr.isatty(), False
        self.bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        """Shows the steps done, the rate and the time left."""
        if self.closed:
            return
        now, self.done, self.total = monotonic(), done, total
        self.first = self.first or (now, done)
        if not self.steps or now - self.steps[-1][0] >= 1:
            self.steps.append((now, done))
        while len(self.steps) > RECENT_STEPS and now - self.steps[1][0] >= RECENT:
            self.steps.popleft()
        if 0 < total <= done:
            self.close()
        elif self.terminal:
            self._draw(now)
        elif now >= self.next_line:
            self._print(self._text(now))
            self.next_line = now + LINE_INTERVAL

    def close(self) -> None:
        """Removes the bar and, after a long loop, prints a last line with its duration; a second call does nothing."""
        if self.closed:
            return
        self.closed = True
        if self.bar is not None:
            self.bar.close()
        now = monotonic()
        if self.first and now - self.started >= LONG:
            took = duration(now - self.started)
            self._print(f"{self._so_far()} in {took}{_rate(self._speed(now, self.first), self.unit)}")

    def __enter__(self) -> Self:
        """Returns the reporter itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the reporter, however the loop ended."""
        self.close()

    def _so_far(self) -> str:
        of = f" of {self.total}" if self.total and self.done != self.total else ""
        parts = [part if part.endswith(":") else f"{part}," for part in [*_places, self.label] if part]
        return f"{' '.join(parts).rstrip(':,')}: {self.done}{of} {self.unit}"

    def _speed(self, now: float, since: tuple[float, int]) -> float:
        then, before = since
        return (self.done - before) / (now - then) if now > then else 0.0

    def _text(self, now: float) -> str:
        rate = self._speed(now, self.steps[0])
        left = f", {duration((self.total - self.done) / rate)} left" if self.total and rate > 0 else ""
        return f"{self._so_far()}{_rate(rate, self.unit)}{left}"

    def _draw(self, now: float) -> None:
        if self.bar is None:
            self.bar = tqdm(
                initial=self.done,
                total=self.total or None,
                bar_format="{bar:20} {desc}",
                desc=self._text(now),
                leave=False,
                miniters=1,
                dynamic_ncols=True,
                file=sys.stderr,
            )
        self.bar.total = self.total or None
        self.bar.set_description_str(self._text(now), refresh=False)
        self.bar.update(self.done - self.bar.n)

    def _print(self, line: str) -> None:
        if self.terminal:
            tqdm.write(line, file=sys.stderr)  # above the bars of the loops around this one
        else:
            print(line, file=sys.stderr, flush=True)


def counted(steps: Iterable[Step], label: str, unit: str, total: int) -> Generator[Step]:
    """Passes on the steps of a loop, and reports how many are done: a step is, when the next one is asked for."""
    with reporter(label, unit) as report:
        report(0, total)
        for number, step in enumerate(steps, 1):
            yield step
            report(number, total)


def duration(seconds: float) -> str:
    """`03:20` or `1:03:20`."""
    return str(tqdm.format_interval(seconds))


def durations(seconds: Iterable[float]) -> str:
    """One duration, or the shortest and the longest of several: `00:20 to 03:20`."""
    texts = list(dict.fromkeys(map(duration, sorted(seconds))))
    return " to ".join(dict.fromkeys([texts[0], texts[-1]]))


def _rate(per_second: float, unit: str) -> str:
    if per_second <= 0:
        return ""
    value, per = (per_second, "s") if per_second >= 1 else (per_second * 60, "min")
    return f", {value:.0f} {unit}/{per}" if value >= 100 else f", {value:.3g} {unit}/{per}"


def reporter(label: str, unit: str) -> Reporter:
    """A function to call with (done, total) before the first step of a loop and after every step.

    Args:
        label: name of the loop; empty if its place says it all.
        unit: what the steps are, in the plural.
    """
    return Reporter(label, unit)
