"""As a script: the kept features of some patches, for tests that start several processes; prints how many blocks each computed."""

import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from doctogres.model.network import create_network
from doctogres.training import features
from doctogres.training.features import Copy, FrozenFeatures
from doctogres.training.processes import is_leader
from doctogres.training.trainer import make_accelerator
from tests.training.coloured_squares import RECIPE, coloured_squares

BLOCK = 5


def main() -> None:
    folder = Path(sys.argv[1])
    setattr(features, "BLOCK", BLOCK)  # noqa: B010  # a constant elsewhere
    torch.set_num_threads(1)
    torch.manual_seed(0)
    accelerator = make_accelerator(RECIPE)
    samples, *_ = coloured_squares(size=32)
    network = create_network("test_resnet", classes=3, size=32).eval()
    frozen = FrozenFeatures(
        network, samples, np.arange(len(samples.pixels)), folder=folder,
        autocast=accelerator.autocast, progress=lambda label, unit: nullcontext(lambda done, total: None),
    )  # fmt: skip
    computed, block = [], frozen._block

    def counted(copy: Copy, number: int) -> np.ndarray:
        computed.append(number)
        return block(copy, number)

    frozen._block = counted  # type: ignore[method-assign]
    for copy in (Copy(), Copy(turn=3), Copy(augmented=1), Copy()):
        frozen.of(copy)
    print(f"computed {len(computed)} leader {is_leader()}", flush=True)


if __name__ == "__main__":
    main()
