"""Networks that answer together as one, and what they say of patches: probabilities, and features for an attention head."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from doctogres.attention import GatedAttention
from doctogres.compiled import CompiledNetwork
from doctogres.network import normalise

logger: Final = logging.getLogger(__name__)
TURNS: Final = 8  # flips and quarter turns of a square: the dihedral group
BATCH: Final = 64  # patches per forward pass
COMPILED_BATCH: Final = 16  # as fast on the CPU, in a third of the memory
SAME: Final = 1e-5  # how far a compiled network's probabilities may be from PyTorch's


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
        self._compiled: list[CompiledNetwork] = []

    @torch.no_grad()
    def compile_members(self, *, size: int) -> None:
        """Lets OpenVINO run the members in `outputs_of` from now on; their weights must not change any more.

        Where it cannot, or would answer differently, PyTorch goes on and a line in the log says why.

        Args:
            size: side of the patches in pixels.
        """
        features = len(self.attention) > 0
        pixels = torch.randint(
            0, 256, (5, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        statistics = torch.full((3,), 0.5), torch.full((3,), 0.25)
        compiled = []
        for member in self.members:
            network = _Answering(member, features)
            try:
                compiled.append(CompiledNetwork(network, pixels[:2], *statistics))
                answers = [one(pixels[2:], *statistics)[0].softmax(1) for one in (network, compiled[-1])]
                far = (answers[0] - answers[1]).abs().max().item()
            except Exception as error:  # noqa: BLE001  # OpenVINO's converter raises whatever it meets
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            else:
                if far <= SAME:
                    continue
                reason = f"its probabilities are off by up to {far:.0e}"
            logger.warning("OpenVINO cannot run this network (%s); PyTorch runs it, which takes longer", reason)
            return
        self._compiled = compiled

    @property
    def batch_size(self) -> int:
        """Patches per forward pass."""
        return COMPILED_BATCH if self._compiled else BATCH

    def member_outputs(
        self, pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, *, features: bool
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yields every member's logits (patches, classes) and, where asked for, features before the classifier.

        Args:
            pixels: (patches, size, size, 3) uint8.
            mean: (3,).
            std: (3,).
            features: asked for.
        """
        as_compiled = self._compiled and features == (len(self.attention) > 0)
        networks = self._compiled if as_compiled else [_Answering(member, features) for member in self.members]
        yield from (network(pixels, mean, std) for network in networks)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Log of the members' mean probabilities, (patches, classes), for standardised patches."""
        probabilities = torch.stack([member(inputs).double().softmax(1) for member in self.members]).mean(0)
        return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()


class _Answering(nn.Module):
    """A timm classifier that takes pixels and gives its logits and, where asked for, its features before the classifier."""

    def __init__(self, member: Any, features: bool):
        super().__init__()
        self.member, self.features = member, features

    def forward(self, pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> tuple[torch.Tensor, ...]:
        patches = normalise(pixels, mean, std)  # channels last, as the pixels are
        if not self.features:
            return (self.member(patches),)
        body = self.member.forward_features(patches)
        return self.member.forward_head(body), self.member.forward_head(body, pre_logits=True).flatten(1)


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


def turned(pixels: torch.Tensor, turn: int) -> torch.Tensor:
    """The patches (patches, size, size, 3) in one of their eight turns; 0 is as they are."""
    quarter = torch.rot90(pixels, turn % 4, (1, 2))
    return (quarter.flip(2) if turn >= 4 else quarter).contiguous()


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
    """
    device = next(ensemble.parameters()).device
    statistics = torch.tensor(mean, device=device), torch.tensor(std, device=device)
    if was_training := ensemble.training:
        ensemble.eval()
    views = range(TURNS if tta else 1)
    answers: list[list[list[Any]]] = [[[] for _ in ensemble.members] for _ in views]
    kept: list[list[list[torch.Tensor]]] = [[[] for _ in ensemble.members] for _ in views]
    for batch in _batches(pixels, np.arange(len(pixels)) if rows is None else rows, ensemble.batch_size):
        patches = torch.from_numpy(batch).to(device)
        for view in views:
            outputs = ensemble.member_outputs(turned(patches, view), *statistics, features=features)
            for place, (logits, *body) in enumerate(outputs):
                answers[view][place].append(logits.cpu().double().softmax(1).numpy())
                kept[view][place].extend(one.float().cpu() for one in body)
    if was_training:
        ensemble.train()
    probabilities = np.array([[np.concatenate(one) for one in view] for view in answers])
    return Outputs(probabilities, [[torch.cat(one) for one in view] for view in kept] if features else [])


def _batches(pixels: Any, rows: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.uint8]]:
    for start in range(0, len(rows), size):
        yield np.asarray(pixels[rows[start : start + size]])
