"""Training of the gated-attention head on the features of a network's training patches."""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from doctogres.model.attention import GatedAttention
from doctogres.progress import counted
from doctogres.training.samples import class_weights

EPOCHS: Final = 40
SLIDES_PER_STEP: Final = 16
LEARNING_RATE: Final = 1e-3
WEIGHT_DECAY: Final = 1e-2


def train_attention(
    features: torch.Tensor, slides: npt.NDArray[np.int64], targets: npt.NDArray[np.int64], *, classes: int, seed: int
) -> GatedAttention:
    """Fits a head to slides by cross-entropy, with classes weighted inversely to their share.

    Args:
        features: (patches, features) on the CPU.
        slides: (patches,) the slide number of each patch, consecutive from 0.
        targets: (slides,) class of each slide.
        classes: number of classes.
        seed: seed for weights, order and dropout.
    """
    weights = torch.from_numpy(class_weights(targets, classes))
    patches_of = [torch.from_numpy(np.flatnonzero(slides == slide)) for slide in range(len(targets))]
    labels = torch.from_numpy(targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = GatedAttention(features.shape[1], classes)
        optimizer = torch.optim.AdamW(head.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        for _ in counted(range(EPOCHS), "attention head", "epochs", EPOCHS):
            for chosen in torch.split(torch.randperm(len(targets)), SLIDES_PER_STEP):
                rows = [patches_of[slide] for slide in chosen.tolist()]
                numbers = torch.repeat_interleave(
                    torch.arange(len(rows)), torch.tensor([len(patches) for patches in rows])
                )
                loss = F.cross_entropy(head(features[torch.cat(rows)], numbers), labels[chosen], weight=weights)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    return head.eval()
