"""Lion with a learning rate per block; blocks that open later enter with their own."""

import math
from typing import Any

import torch
from lion_pytorch import Lion
from torch import nn

from doctogres.settings import TrainSettings


def make_optimizer(network: nn.Module, groups: list[list[str]], settings: TrainSettings) -> Lion:
    """Lion (Chen et al. 2023) over the parameters that are trainable now, a group per block.

    The learning rate falls by `layer_decay` with every block away from the head (discriminative fine-tuning, Howard &
    Ruder 2018). Weights decay; biases, norms and scales (one dimension) do not.
    """
    optimizer = Lion(_parameter_groups(network, groups, settings, known=set()), lr=settings.learning_rate)
    return optimizer


def add_opened(optimizer: Lion, network: nn.Module, groups: list[list[str]], settings: TrainSettings) -> int:
    """Gives the optimizer every parameter that is trainable but not yet in it; returns how many values that adds.

    Without this step an optimizer made while the backbone was frozen never trains it.
    """
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    added = _parameter_groups(network, groups, settings, known=known)
    for group in added:
        optimizer.add_param_group(group)
    return sum(parameter.numel() for group in added for parameter in group["params"])


def _parameter_groups(
    network: nn.Module, groups: list[list[str]], settings: TrainSettings, *, known: set[int]
) -> list[dict[str, Any]]:
    parameters = dict(network.named_parameters())
    result: list[dict[str, Any]] = []
    for depth, names in enumerate(reversed(groups)):
        rate = settings.learning_rate * settings.layer_decay**depth
        fresh = [
            parameters[name] for name in names if parameters[name].requires_grad and id(parameters[name]) not in known
        ]
        for decays in (True, False):
            members = [parameter for parameter in fresh if (parameter.ndim > 1) == decays]
            if members:
                decay = settings.weight_decay if decays else 0.0
                result.append({"params": members, "lr": rate, "base_lr": rate, "weight_decay": decay, "depth": depth})
    return result


def set_learning_rates(optimizer: torch.optim.Optimizer, *, step: int, steps: int, warmup: int) -> None:
    """Cosine from each group's own rate to a hundredth of it, after a linear warm-up; `step` counts from 0."""
    if step < warmup:
        factor = (step + 1) / warmup
    else:
        progress = (step - warmup) / max(1, steps - warmup)
        factor = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
