"""How long one slide takes: models measured in turn on the same slides, so that a busy machine slows all of them."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np

PERCENTILE: Final = 95


def slide_latency_ms(
    models: Mapping[str, Callable[[Any], object]],
    slides: Iterable[Any],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """The 95th percentile over the slides, in milliseconds, for every model.

    Every slide is answered by each model before the next one. The first slide is answered once more beforehand, because the
    first forward pass also compiles the networks.

    Args:
        models: name -> answers one slide.
        slides: at least one.
        clock: in seconds.
    """
    taken: dict[str, list[float]] = {name: [] for name in models}
    for number, slide in enumerate(slides):
        for name, answer in models.items():
            if number == 0:
                answer(slide)
            started = clock()
            answer(slide)
            taken[name].append(1000 * (clock() - started))
    return {name: float(np.percentile(values, PERCENTILE)) for name, values in taken.items()}
