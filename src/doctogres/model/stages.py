"""The first stages of a backbone as a backbone of their own.

The last layers of a network that was trained on photographs serve the classes of photographs; what tells tissues apart is often
clearer a few layers before.
"""

from typing import Any

from torch import nn

from doctogres.errors import ParameterError


def keep_stages(network: nn.Module, backbone: str, stages: int, *, classes: int) -> None:
    """Takes the layers after a backbone's first stages out, in place, and gives it a linear head for what is left.

    Args:
        network: a timm classifier.
        backbone: its name, for errors.
        stages: how many of timm's feature stages are kept (blocks, in a transformer), counted from the end if negative: -1 keeps
            all and takes out what follows the last one, such as the 1x1 convolution of the MobileNet and EfficientNet families.
        classes: number of outputs of the new head.

    Raises:
        ParameterError: timm cannot cut this architecture, or it has fewer stages.
    """
    cut: Any = getattr(network, "prune_intermediate_layers", None)
    if cut is None:
        raise ParameterError(
            f"stages={stages}: timm cannot cut {backbone} after a stage; give stages=0, which uses all of it"
        )
    listed: Any = network.feature_info
    kept = stages if stages > 0 else len(listed) + 1 + stages
    if not 1 <= kept <= len(listed):
        raise ParameterError(
            f"stages={stages}: {backbone} has {len(listed)} stages; give -{len(listed)} to {len(listed)}"
        )
    pooling = _pooling(network)
    cut([kept - 1], prune_norm=False, prune_head=True)
    network.reset_classifier(classes, pooling)  # type: ignore[operator]
    network.feature_info = listed[:kept]


def _pooling(network: Any) -> str:
    """How the network pools its output before the head; cutting it would leave it unpooled."""
    pool = network.global_pool if hasattr(network, "global_pool") else network.head.global_pool
    return pool if isinstance(pool, str) else str(pool.pool_type)
