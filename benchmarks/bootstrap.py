"""`OMP_NUM_THREADS=1 python -m benchmarks.bootstrap`: intervals of all metrics, against one `f1_score` per draw.

The loop draws slides (or whole slides' patches) and calls scikit-learn's `f1_score` alone, on few draws, scaled up.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from doctogres.evaluation.metrics import slide_metrics

PATCHES_PER_SLIDE = 100


def seconds(call: Callable[[], object]) -> NDArray[np.float64]:
    """Wall and CPU time of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return np.array([time.perf_counter() - wall, time.process_time() - cpu])


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, nargs="*", default=[100, 500, 2000])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--loop-draws", type=int, default=50)
    parser.add_argument("--classes", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    names = [f"class {one}" for one in range(options.classes)]
    print(
        "| slides | rows | draws | all metrics, s | in CPU time, s | a loop for macro-F1 alone, CPU s | times as fast |\n|"
        + "---|" * 7
    )
    for slides, patches in [(slides, 1) for slides in options.slides] + [(500, PATCHES_PER_SLIDE)]:
        rng = np.random.default_rng(0)
        truth = np.repeat(rng.integers(0, len(names), slides), patches)
        rows = rng.dirichlet(np.ones(len(names)), len(truth))
        labels, groups = [names[one] for one in truth], [str(index // patches) for index in range(len(truth))]
        members, predicted = np.arange(len(truth)).reshape(slides, patches), rows.argmax(axis=1)

        ours = partial(slide_metrics, labels, rows, names, groups=groups, resamples=options.draws)

        def loop(members: Any = members, truth: Any = truth, predicted: Any = predicted, rng: Any = rng) -> None:
            for _ in range(options.loop_draws):
                drawn = members[rng.integers(0, len(members), len(members))].ravel()
                f1_score(truth[drawn], predicted[drawn], average="macro")

        times, loops = np.array([(seconds(ours), seconds(loop)) for _ in range(options.repeats)]).transpose(1, 2, 0)
        loops *= options.draws / options.loop_draws
        wall, cpu = (f"{np.median(one):.2f} ({one.min():.2f}-{one.max():.2f})" for one in times)
        last = f"{np.median(loops[1]):.1f} | {np.median(loops[1] / times[1]):.0f}"
        print(f"| {slides} | {len(truth)} | {options.draws} | {wall} | {cpu} | {last} |", flush=True)


if __name__ == "__main__":
    main()
