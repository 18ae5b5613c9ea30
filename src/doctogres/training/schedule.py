"""Progressive unfreezing: which blocks train in which epoch.

This is the gradual unfreezing of Howard & Ruder 2018 (ULMFiT): first the head, then blocks from the head downwards, so
that the large initial gradients of a random head do not destroy the pretrained features near the input.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # `open_blocks` alone needs no torch
    from torch import nn

BLOCKS_PER_STEP: Final = 2


def open_blocks(epoch: int, *, blocks: int, unfreeze_every: int) -> int:
    """How many backbone blocks, counted from the head, train in an epoch (counted from 0).

    Only the head trains for the first `unfreeze_every` epochs, then two more blocks every `unfreeze_every` epochs until
    all are unfrozen. With 0, all train from the start.
    """
    if unfreeze_every == 0:
        return blocks
    return min(blocks, BLOCKS_PER_STEP * (epoch // unfreeze_every))


def apply_freezing(network: "nn.Module", groups: list[list[str]], open_count: int) -> list[str]:
    """Makes the head and the last `open_count` backbone blocks trainable and freezes everything else.

    Args:
        network: the classifier.
        groups: parameter names from input to head (`network.layer_groups`).
        open_count: number of backbone blocks that train.

    Returns:
        The names of the trainable parameters, input to head.
    """
    trainable = [name for group in groups[len(groups) - 1 - open_count :] for name in group]
    unfrozen = set(trainable)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in unfrozen)
    return trainable


def train_mode(network: "nn.Module") -> None:
    """Puts trainable modules in training mode and frozen ones in evaluation mode.

    A frozen block must not update its batch-norm statistics or use stochastic depth: its output stays bit-identical.
    """
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
