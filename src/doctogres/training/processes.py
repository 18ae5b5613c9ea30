"""Training in several processes, as started by `torchrun` or `accelerate launch`: one is the leader.

Only the leader uses MLflow, prints and writes files. It tells the others what to train, and every process computes its
share of each batch.
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
    """Returns the leader's `job` in every process; all processes must call it. Connects the processes if needed."""
    from accelerate.utils import broadcast_object_list

    from doctogres.training.trainer import make_accelerator

    make_accelerator(settings)
    jobs = [job]
    broadcast_object_list(jobs, from_process=0)
    return jobs[0]
