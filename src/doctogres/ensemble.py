"""Networks that answer together as one, and what they say of patches: probabilities, and features for an attention head."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from doctogres.attention import GatedAttention
from doctogres.network import normalise

TURNS: Final = 8  # flips and quarter turns of a square: the dihedral group


class Ensemble(nn.Module):
    """One or more patch classifiers of the same classes.

    Args:
        members: timm classifiers.
        attention: none, or a head for each member that makes a slide's probabilities of its patches' features.
    """

    def __init__(self, members: Sequence[nn.Module], attention: Sequence[GatedAttention] = ()):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.attention = nn.ModuleList(attention)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Log of the members' mean probabilities, (patches, classes), for standardised patches."""
        probabilities = torch.stack([member(inputs).double().softmax(1) for member in self.members]).mean(0)
        return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()


@dataclass(frozen=True)
class Outputs:
    """What every member says of some patches in every view of them."""

    probabilities: npt.NDArray[np.float64]  # (views, members, patches, classes)
    features: list[list[torch.Tensor]]  # by view and member, (patches, features) on the CPU; empty where not asked for

    def of_patches(self) -> npt.NDArray[np.float64]:
        """The mean over views and members, (patches, classes)."""
        return np.asarray(self.probabilities.mean(axis=(0, 1)))

    def attended(self, ensemble: Ensemble, slides: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float64]:
        """The attention heads' probabilities of slides, (slides, classes), the mean over views and members.

        Args:
            ensemble: the one that made these outputs.
            slides: row numbers of each slide's patches.
        """
        heads: list[Any] = [head.cpu() for head in ensemble.attention]
        answers = [
            [head.of_slide(features[rows]).numpy() for rows in slides]
            for view in self.features
            for head, features in zip(heads, view, strict=True)
        ]
        return np.asarray(np.mean(answers, axis=0))


def turned(inputs: torch.Tensor, turn: int) -> torch.Tensor:
    """The patches (patches, 3, size, size) in one of their eight turns; 0 is as they are."""
    quarter = torch.rot90(inputs, turn % 4, (2, 3))
    return quarter.flip(3) if turn >= 4 else quarter


@torch.no_grad()  # not inference mode: an attention head trains on the features
def outputs_of(
    ensemble: Ensemble,
    pixels: Any,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    rows: npt.NDArray[np.int64] | None = None,
    tta: bool = False,
    features: bool = False,
    batch_size: int = 64,
) -> Outputs:
    """What the ensemble says of patches, in evaluation mode.

    Args:
        ensemble: on the device it shall run on.
        pixels: (patches, size, size, 3) uint8 array, memory-mapped or not; at least one patch.
        mean: per channel.
        std: per channel.
        rows: numbers of the patches that are asked for; all where not given.
        tta: in all eight flips and turns, not only as they are.
        features: return the features before the classifier, too.
        batch_size: patches per forward pass.
    """
    device = next(ensemble.parameters()).device
    was_training = ensemble.training
    ensemble.eval()
    views = range(TURNS if tta else 1)
    answers: list[list[list[Any]]] = [[[] for _ in ensemble.members] for _ in views]
    kept: list[list[list[torch.Tensor]]] = [[[] for _ in ensemble.members] for _ in views]
    for batch in _batches(pixels, np.arange(len(pixels)) if rows is None else rows, batch_size):
        inputs = normalise(torch.from_numpy(batch).to(device), mean, std)
        for view in views:
            patches = turned(inputs, view).contiguous(memory_format=torch.channels_last)
            for place, member in enumerate(ensemble.members):
                if features:
                    body = member.forward_features(patches)  # type: ignore[operator]
                    kept[view][place].append(member.forward_head(body, pre_logits=True).flatten(1).float().cpu())  # type: ignore[operator]
                    logits = member.forward_head(body)  # type: ignore[operator]
                else:
                    logits = member(patches)
                answers[view][place].append(logits.cpu().double().softmax(1).numpy())
    ensemble.train(was_training)
    probabilities = np.array([[np.concatenate(one) for one in view] for view in answers])
    return Outputs(probabilities, [[torch.cat(one) for one in view] for view in kept] if features else [])


def _batches(pixels: Any, rows: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.uint8]]:
    for start in range(0, len(rows), size):
        yield np.asarray(pixels[rows[start : start + size]])
