"""One training in several processes, as `torchrun` and `accelerate launch` start them: one leads, the others follow.

Only the leader talks to MLflow, prints and writes. It hands the others what to train; they compute their share of every
batch with it.
"""

import os
from typing import Any

from doctogres.settings import TrainSettings


def is_leader() -> bool:
    """Whether this process is the only one, or the first of several."""
    return int(os.environ.get("RANK", "0")) == 0


def process_count() -> int:
    """How many processes the launcher started for this training."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def broadcast(job: Any, settings: TrainSettings) -> Any:
    """The leader's `job`, in every process; all of them must call this. Joins the processes where they are not yet."""
    from accelerate.utils import broadcast_object_list

    from doctogres.training.trainer import make_accelerator

    make_accelerator(settings)
    jobs = [job]
    broadcast_object_list(jobs, from_process=0)
    return jobs[0]
