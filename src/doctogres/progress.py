"""Progress of a loop: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable
from typing import Any, Final

from tqdm import tqdm

LINE_INTERVAL: Final = 10.0  # seconds


def reporter(label: str, unit: str) -> Callable[[int, int], None]:
    """A function to call with (done, total) after every step of a loop; shows rate and remaining time.

    Args:
        label: what is being done.
        unit: what is counted.
    """
    bar: Any = None
    started = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal bar, last
        if sys.stderr.isatty():
            bar = bar if bar is not None else tqdm(total=total, desc=label, unit=unit, leave=False)
            bar.update(done - bar.n)
            if done >= total:
                bar.close()
            return
        now = time.monotonic()
        if now - last >= LINE_INTERVAL:
            rate = done / (now - started)
            print(
                f"{label}: {done} of {total}, {rate:.1f} {unit}/s, {(total - done) / rate:.0f} s left",
                file=sys.stderr,
                flush=True,
            )
            last = now

    return report
