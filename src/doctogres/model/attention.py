"""Gated attention (Ilse et al., ICML 2018): a head that learns how much each of a slide's patches counts."""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

HIDDEN: Final = 128
EPOCHS: Final = 40
SLIDES_PER_STEP: Final = 16
LEARNING_RATE: Final = 1e-3
WEIGHT_DECAY: Final = 1e-2
DROPOUT: Final = 0.25


class GatedAttention(nn.Module):
    """From the features of a slide's patches to its class logits.

    Args:
        features: of a patch.
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
            slides: (patches,) the number of each patch's slide, from 0 without gaps.
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


def train_attention(
    features: torch.Tensor, slides: npt.NDArray[np.int64], targets: npt.NDArray[np.int64], *, classes: int, seed: int
) -> GatedAttention:
    """A head fitted to slides by cross-entropy, the classes weighted inversely to their share.

    Args:
        features: (patches, features) on the CPU.
        slides: (patches,) the number of each patch's slide, from 0 without gaps.
        targets: (slides,) class of each slide.
        classes: number of classes.
        seed: of weights, order and dropout.
    """
    counts = np.bincount(targets, minlength=classes)
    weights = torch.tensor(np.where(counts > 0, len(targets) / np.maximum(counts, 1), 0.0), dtype=torch.float32)
    patches_of = [torch.from_numpy(np.flatnonzero(slides == slide)) for slide in range(len(targets))]
    wanted = torch.from_numpy(targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = GatedAttention(features.shape[1], classes)
        optimizer = torch.optim.AdamW(head.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        for _ in range(EPOCHS):
            for chosen in torch.split(torch.randperm(len(targets)), SLIDES_PER_STEP):
                rows = [patches_of[slide] for slide in chosen.tolist()]
                numbers = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor([len(one) for one in rows]))
                loss = F.cross_entropy(head(features[torch.cat(rows)], numbers), wanted[chosen], weight=weights)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return head.eval()
