"""Training in several processes, as started by `torchrun` or `accelerate launch`: one is the leader.

Only the leader uses MLflow, prints and writes files. It tells the others what to train, and every process computes its
share of each batch.
"""

import os
from collections.abc import Callable, Iterator
from typing import Any

from doctogres.settings import TrainSettings


def is_leader() -> bool:
    """Whether this process is the only one, or the first of several."""
    return int(os.environ.get("RANK", "0")) == 0


def process_count() -> int:
    """How many processes the launcher started for this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def broadcast(job: Any, settings: TrainSettings) -> Any:
    """Returns the leader's `job` in every process; all processes must call it. Connects the processes if needed."""
    from accelerate.utils import broadcast_object_list

    from doctogres.training.trainer import make_accelerator

    make_accelerator(settings)
    jobs = [job]
    broadcast_object_list(jobs, from_process=0)
    return jobs[0]


def agreed(value: bool) -> bool:
    """Whether it is true in every process; all processes must call it."""
    if process_count() == 1:
        return value
    from accelerate.utils import gather_object

    return all(gather_object([value]))


def shared(compute: Callable[[int], Any], count: int) -> Iterator[Any]:
    """Yields compute(0), compute(1), ... in every process, although each is computed in one of them only.

    All processes must consume it to the end.
    """
    processes, own = process_count(), int(os.environ.get("RANK", "0"))
    if processes == 1:
        yield from map(compute, range(count))
        return
    from accelerate.utils import gather_object

    for first in range(0, count, processes):
        mine = first + own
        yield from gather_object([compute(mine)] if mine < count else [])


def writes() -> bool:
    """Whether this process writes what all processes of its machine read."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def wait_for_all() -> None:
    """Returns when every process has called it."""
    if process_count() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()
