"""An ensemble of networks, and its outputs for patches: probabilities, and features for an attention head."""

import logging
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from doctogres.model.attention import GatedAttention
from doctogres.model.compiled import CompiledNetwork, compile_checked
from doctogres.model.fusion import softmax
from doctogres.model.graphs import BATCH as COMPILED_BATCH
from doctogres.model.graphs import PROBE_STATISTICS, difference, probe, write_graph
from doctogres.model.network import normalise
from doctogres.model.novelty import FeatureGaussian
from doctogres.model.passes import Passes
from doctogres.patches.joined import read_ahead
from doctogres.slides.turns import TURNS, turned

logger: Final = logging.getLogger(__name__)
WITHOUT_OPENVINO: Final = "the networks run with PyTorch instead of OpenVINO, so predictions take longer"
BATCH: Final = 64  # patches per forward pass


class Ensemble(nn.Module):
    """One or more patch classifiers of the same classes.

    Args:
        members: timm classifiers.
        attention: empty, or one head per member that predicts a slide's class from its patch features.
        gaussians: empty, or that of every member's training features, for the distances of patches.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        attention: Sequence[GatedAttention] = (),
        gaussians: Sequence[FeatureGaussian] = (),
    ):
        super().__init__()
        self.members = nn.ModuleList(members)
        self.attention = nn.ModuleList(attention)
        self.gaussians = nn.ModuleList(gaussians)
        self.passes = Passes()
        self._compiled: CompiledNetwork | None = None

    def compile_members(self, *, size: int) -> None:
        """Makes `outputs_of` run the members with OpenVINO until they are trained or moved.

        If OpenVINO fails or gives different outputs, PyTorch is used and a line in the log says why.

        Args:
            size: side of the patches in pixels.
        """
        self._compiled, reason = _PatchClassifiers(self.members, features=self.uses_features).compiled(size)
        if reason:
            logger.warning("%s: %s", WITHOUT_OPENVINO, reason)

    def save_graph(self, weights: Path, number: int, *, size: int) -> None:
        """Writes the members' graph beside the weights, if OpenVINO can run them and a server needs nothing else.

        Args:
            weights: the file with the weights of all sources.
            number: of this source.
            size: side of the patches in pixels.
        """
        if self.attention:
            return
        members = deepcopy(self.members).cpu().eval().to(memory_format=torch.contiguous_format)
        network = _PatchClassifiers(members, features=self.uses_features)
        compiled, _ = network.compiled(size)  # whoever loads the networks gets the reason in the log
        if compiled:
            with torch.no_grad():
                outputs = network(*map(torch.from_numpy, (probe(size), *PROBE_STATISTICS)))
            write_graph(compiled.model, [output.numpy() for output in outputs], weights, number)

    def outputs(
        self,
        pixels: npt.NDArray[np.uint8],
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        tta: bool,
        before_pass: Callable[[int], None],
    ) -> "Outputs":
        """See `outputs_of`; with the features that an answer needs."""
        return outputs_of(
            self, pixels, mean=mean, std=std, tta=tta, features=self.uses_features, before_pass=before_pass
        )

    def train(self, mode: bool = True) -> Self:
        if mode:
            self._compiled = None  # its weights would not follow the training
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._compiled = None
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    @property
    def uses_features(self) -> bool:
        """Whether an answer needs the features before the classifier, too."""
        return len(self.attention) + len(self.gaussians) > 0

    @property
    def batch_size(self) -> int:
        """Patches per forward pass."""
        return COMPILED_BATCH if self._compiled else BATCH

    def member_outputs(
        self, pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, *, features: bool
    ) -> Iterator[tuple[torch.Tensor, ...]]:
        """Yields every member's logits (patches, classes) and, if requested, the features before the classifier.

        Args:
            pixels: (patches, size, size, 3) uint8.
            mean: (3,).
            std: (3,).
            features: whether to return the features.
        """
        if self._compiled and features <= self.uses_features:
            outputs, each = self._compiled(pixels, mean, std), 1 + self.uses_features
        else:
            outputs, each = _PatchClassifiers(self.members, features=features)(pixels, mean, std), 1 + features
        for start in range(0, len(outputs), each):
            yield outputs[start : start + 1 + features]

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Log of the members' mean probabilities, (patches, classes), for standardised patches."""
        probabilities = torch.stack([member(inputs).double().softmax(1) for member in self.members]).mean(0)
        return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()


class _PatchClassifiers(nn.Module):
    """timm classifiers from pixels to each one's logits and, if requested, its features before the classifier."""

    def __init__(self, members: nn.ModuleList, *, features: bool):
        super().__init__()
        self.members, self.features = members, features

    def forward(self, pixels: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> tuple[torch.Tensor, ...]:
        patches = normalise(pixels, mean, std)  # channels last, as the pixels are
        outputs: list[torch.Tensor] = []
        for member in self.members:
            if self.features:
                body = member.forward_features(patches)  # type: ignore[operator]
                outputs.append(member.forward_head(body))  # type: ignore[operator]
                outputs.append(member.forward_head(body, pre_logits=True).flatten(1))  # type: ignore[operator]
            else:
                outputs.append(member(patches))
        return tuple(outputs)

    def compiled(self, size: int) -> tuple[CompiledNetwork | None, str]:
        """The compiled networks, or why OpenVINO cannot run them; for patches of this side in pixels."""
        pixels, statistics = probe(size), map(torch.from_numpy, PROBE_STATISTICS)
        examples = torch.from_numpy(np.concatenate([pixels[:2], pixels]))
        return compile_checked(self, examples, *statistics, difference=self.difference)

    def difference(self, expected: Sequence[torch.Tensor], actual: Sequence[torch.Tensor]) -> str:
        """How OpenVINO's outputs differ from the expected ones by more than rounding; empty if they do not."""
        wanted, given = ([output.numpy() for output in outputs] for outputs in (expected, actual))
        return difference(wanted, given, each=1 + self.features)


@dataclass(frozen=True)
class Outputs:
    """The outputs of every member for every view of some patches."""

    every_view: npt.NDArray[np.float64]  # logits (views, members, patches, classes)
    features: list[list[torch.Tensor]]  # by view and member, (patches, features) on the CPU; empty if not requested

    @property
    def logits(self) -> npt.NDArray[np.float64]:
        """The mean over the views, (members, patches, classes): what a linear head says of the views' mean features."""
        return np.asarray(self.every_view.mean(axis=0))

    def of_patches(self) -> npt.NDArray[np.float64]:
        """The mean of the members' probabilities, (patches, classes)."""
        return np.asarray(softmax(self.logits).mean(axis=0))

    def attended(self, ensemble: Ensemble, slides: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float64]:
        """Slide probabilities by the attention heads, (slides, classes), the mean over views and members.

        Args:
            ensemble: the ensemble that produced these outputs.
            slides: row numbers of each slide's patches.
        """
        heads: list[Any] = [head.cpu() for head in ensemble.attention]
        answers = [
            [head.of_slide(features[rows]).numpy() for rows in slides]
            for view in self.features
            for head, features in zip(heads, view, strict=True)
        ]
        return np.asarray(np.mean(answers, axis=0))

    def log_distances(self, ensemble: Ensemble) -> npt.NDArray[np.float64]:
        """Of the patches as they are, without flips and rotations, from every member's training patches: (members, patches)."""
        gaussians: list[Any] = list(ensemble.gaussians)
        features = self.features[0]
        return np.stack([of.log_distances(each.numpy()) for of, each in zip(gaussians, features, strict=True)])


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
    before_pass: Callable[[int], None] = lambda _: None,
) -> Outputs:
    """The ensemble's outputs for patches, in evaluation mode.

    Args:
        ensemble: on the device to run on.
        pixels: (patches, size, size, 3) uint8 array, memory-mapped or not; at least one patch.
        mean: per channel.
        std: per channel.
        rows: numbers of the patches to classify; all by default.
        tta: classify all eight flips and rotations.
        features: also return the features before the classifier.
        before_pass: called before each forward pass with its number of patches.
    """
    device = next(ensemble.parameters()).device
    statistics = torch.tensor(mean, device=device), torch.tensor(std, device=device)
    if was_training := ensemble.training:
        ensemble.eval()

    def member_outputs(patches: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
        return list(ensemble.member_outputs(patches, *statistics, features=features))

    views = range(len(TURNS) if tta else 1)
    answers: list[list[list[Any]]] = [[[] for _ in ensemble.members] for _ in views]
    kept: list[list[list[torch.Tensor]]] = [[[] for _ in ensemble.members] for _ in views]
    for batch in _batches(pixels, np.arange(len(pixels)) if rows is None else rows, ensemble.batch_size):
        for view in views:
            before_pass(len(batch))
            patches = torch.from_numpy(turned(batch, view, axes=(1, 2))).to(device)
            for outputs in ensemble.passes(member_outputs, patches):
                for place, (of_member, *body) in enumerate(outputs):
                    answers[view][place].append(of_member.cpu().double().numpy())
                    kept[view][place].extend(tensor.float().cpu() for tensor in body)
    if was_training:
        ensemble.train()
    logits = np.array([[np.concatenate(batches) for batches in view] for view in answers])
    return Outputs(logits, [[torch.cat(batches) for batches in view] for view in kept] if features else [])


def _batches(pixels: Any, rows: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.uint8]]:
    batches = (rows[start : start + size] for start in range(0, len(rows), size))
    for batch in read_ahead(pixels, batches):
        yield np.asarray(pixels[batch])
