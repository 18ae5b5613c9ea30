"""Lion with a learning rate per block, built once over the whole network."""

import math
from typing import Any

import torch
from lion_pytorch import Lion
from torch import nn

from doctogres.settings import TrainSettings


def make_optimizer(network: nn.Module, groups: list[list[str]], settings: TrainSettings) -> Lion:
    """Lion (Chen et al. 2023) over every parameter, frozen or not, one group per block; the head's group is the first.

    A frozen parameter has no gradient, so Lion does not change it, not even by weight decay, until its block is unfrozen;
    no parameter can be forgotten when it is unfrozen later. The learning rate falls by `layer_decay` with every block away
    from the head (discriminative fine-tuning, Howard & Ruder 2018). Weights decay; biases, norms and scales (one-
    dimensional parameters) do not.
    """
    parameters = dict(network.named_parameters())
    result: list[dict[str, Any]] = []
    for depth, names in enumerate(reversed(groups)):
        rate = settings.learning_rate * settings.layer_decay**depth
        for decays in (True, False):
            members = [parameters[name] for name in names if (parameters[name].ndim > 1) == decays]
            if members:
                decay = settings.weight_decay if decays else 0.0
                result.append({"params": members, "lr": rate, "base_lr": rate, "weight_decay": decay})
    return Lion(result, lr=settings.learning_rate)


def set_learning_rates(optimizer: torch.optim.Optimizer, *, step: int, steps: int, warmup: int) -> None:
    """Cosine decay from each group's own rate to a hundredth of it, after a linear warm-up; `step` counts from 0."""
    if step < warmup:
        factor = (step + 1) / warmup
    else:
        progress = (step - warmup) / max(1, steps - warmup)
        factor = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
