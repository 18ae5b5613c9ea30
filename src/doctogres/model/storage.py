"""A classifier's networks as files: weights as safetensors, and graphs for servers that need no PyTorch."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from doctogres.model.attention import GatedAttention
from doctogres.model.card import ClassifierCard, SourceCard
from doctogres.model.ensemble import Ensemble
from doctogres.model.network import build_network, load_weights, save_weights
from doctogres.model.novelty import FeatureGaussian
from doctogres.settings import ATTENTION


def save_networks(networks: Sequence[Ensemble], weights: Path, *, size: int) -> None:
    """Writes the weights of all sources to one file, and their graphs beside it.

    Args:
        networks: one per source.
        weights: the file.
        size: side of the patches in pixels.
    """
    save_weights(nn.ModuleList(networks), weights)
    for number, network in enumerate(networks):
        network.save_graph(weights, number, size=size)


def load_networks(weights: Path, card: ClassifierCard, *, device: str) -> tuple[Ensemble, ...]:
    """The networks of a card from their weights; `device` `auto` uses a CUDA device if there is one.

    Raises:
        WeightsError: the file has other weights.
    """
    networks = tuple(_empty(source, card) for source in card.sources)
    load_weights(nn.ModuleList(networks), weights)
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    for network in networks:
        network.to(chosen, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        if chosen == "cpu":
            network.compile_members(size=card.patch.patch_size)
    return networks


def _empty(source: SourceCard, card: ClassifierCard) -> Ensemble:
    """The networks of a source before their weights are loaded."""
    size, classes = card.patch.patch_size, len(card.classes)
    attention = source.members if card.answer.aggregation == ATTENTION else 0
    gaussians = source.members if card.novelty else 0
    return Ensemble(
        [build_network(source.architecture, classes=classes, size=size) for _ in range(source.members)],
        [GatedAttention(source.features, classes) for _ in range(attention)],
        [FeatureGaussian(source.features) for _ in range(gaussians)],
    )
