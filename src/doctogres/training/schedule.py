"""Progressive unfreezing: which blocks train in which epoch.

The idea is gradual unfreezing of Howard & Ruder 2018 (ULMFiT): first the head, then blocks from the head downwards,
so that the pretrained features near the input are not destroyed by the first, large gradients of a random head.
"""

from typing import Final

from torch import nn

BLOCKS_PER_STEP: Final = 2


def open_blocks(epoch: int, *, blocks: int, unfreeze_every: int) -> int:
    """How many backbone blocks, counted from the head, train in an epoch (counted from 0).

    Head only for the first `unfreeze_every` epochs, then two blocks more every `unfreeze_every` epochs until all
    are open; all of them from the start when it is 0.
    """
    if unfreeze_every == 0:
        return blocks
    return min(blocks, BLOCKS_PER_STEP * (epoch // unfreeze_every))


def apply_freezing(network: nn.Module, groups: list[list[str]], open_count: int) -> list[str]:
    """Makes the head and the last `open_count` backbone blocks trainable, and everything else frozen.

    Args:
        network: the classifier.
        groups: parameter names from input to head (`network.layer_groups`).
        open_count: backbone blocks that train.

    Returns:
        The names of the trainable parameters, input to head.
    """
    trainable = [name for group in groups[len(groups) - 1 - open_count :] for name in group]
    wanted = set(trainable)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in wanted)
    return trainable


def train_mode(network: nn.Module) -> None:
    """Training mode for what trains; frozen modules stay in evaluation mode.

    A frozen block must not move its batch-norm statistics and must not drop paths: what it computes stays bit-identical.
    """
    network.train()
    for module in network.modules():
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            module.eval()
