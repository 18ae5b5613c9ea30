"""Gated attention (Ilse et al., ICML 2018): a head that learns the weight of each of a slide's patches."""

from typing import Final

import torch
from torch import nn

HIDDEN: Final = 128
DROPOUT: Final = 0.25


class GatedAttention(nn.Module):
    """Maps the features of a slide's patches to the slide's class logits.

    Args:
        features: number of features per patch.
        classes: number of classes.
    """

    def __init__(self, features: int, classes: int):
        super().__init__()
        self.norm = nn.LayerNorm(features)
        self.content = nn.Linear(features, HIDDEN)
        self.gate = nn.Linear(features, HIDDEN)
        self.score = nn.Linear(HIDDEN, 1)
        self.dropout = nn.Dropout(DROPOUT)
        self.classifier = nn.Linear(features, classes)

    def forward(self, features: torch.Tensor, slides: torch.Tensor) -> torch.Tensor:
        """Logits of slides, (slides, classes).

        Args:
            features: (patches, features) of all slides.
            slides: (patches,) the slide number of each patch, consecutive from 0.
        """
        normal = self.dropout(self.norm(features))
        scores = self.score(torch.tanh(self.content(normal)) * torch.sigmoid(self.gate(normal))).squeeze(1)
        count = int(slides.max()) + 1
        highest = scores.new_full((count,), -torch.inf).scatter_reduce(0, slides, scores.detach(), "amax")
        weights = (scores - highest[slides]).exp()
        weights = weights / weights.new_zeros(count).index_add(0, slides, weights)[slides]
        pooled = normal.new_zeros(count, normal.shape[1]).index_add(0, slides, weights[:, None] * normal)
        logits: torch.Tensor = self.classifier(pooled)
        return logits

    @torch.inference_mode()
    def of_slide(self, features: torch.Tensor) -> torch.Tensor:
        """Probabilities of one slide from its patches' features (patches, features), (classes,) in double precision."""
        self.eval()
        logits: torch.Tensor = self(features, torch.zeros(len(features), dtype=torch.long))
        return logits[0].double().softmax(0)
