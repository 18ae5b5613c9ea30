"""Features of a frozen backbone, computed once and reused by every epoch, every fit of a probe and every trial.

While only the head trains, its input depends only on the patch. It is cached for the patch as it is, for its eight flips
and rotations and for a number of augmented copies, one file each, named by everything it depends on: the frozen weights,
the patches, the normalisation, the device's arithmetic and the copy. Several processes share the blocks of patches.
"""

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from doctogres.disk import check_space
from doctogres.files import replacing
from doctogres.model.compiled import compile_checked
from doctogres.model.graphs import rounding_exceeded
from doctogres.model.network import evaluating, layer_groups, normalisation, standardise, unit_range
from doctogres.model.passes import Passes
from doctogres.slides.turns import turned
from doctogres.storage import hold
from doctogres.training.augmentation import augment_pixels
from doctogres.training.processes import agreed, shared, wait_for_all, writes
from doctogres.training.samples import Samples

logger: Final = logging.getLogger(__name__)
VERSION: Final = 2  # raised when augmentation or preprocessing change the features for the same key
BLOCK: Final = 64  # patches per forward pass

Reduction = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Copy:
    """A copy of the patches: turned in one of the eight ways, or with the augmentation of a number."""

    turn: int = 0  # of `turns.TURNS`
    augmented: int = 0  # 0: not augmented

    def __str__(self) -> str:
        return f"augmented{self.augmented}" if self.augmented else f"turn{self.turn}"


PLAIN: Final = Copy()


class FrozenFeatures:
    """The head's inputs for some rows of the patches, copy by copy.

    Args:
        network: with a frozen backbone, on its device.
        samples: the patches; without a key of their content, the pixels themselves are hashed.
        rows: row numbers of the patches, ascending.
        folder: folder of the cache files.
        autocast: the precision of the forward pass.
        progress: opens a progress report, given a label and a unit.
    """

    def __init__(
        self,
        network: nn.Module,
        samples: Samples,
        rows: npt.NDArray[np.int64],
        *,
        folder: Path,
        autocast: Callable[[], AbstractContextManager[Any]],
        progress: Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]],
    ):
        self.network, self.pixels, self.rows = network, samples.pixels, rows
        self.folder, self.autocast, self.progress = folder, autocast, progress
        self.mean, self.std = normalisation(network)
        self.device = next(network.parameters()).device
        self.reduction = head_reduction(network, self.pixels.shape[1])
        self.key = self._key(set(layer_groups(network)[-1]), samples.pixels_key)
        self._copies: dict[Copy, npt.NDArray[np.float32]] = {}
        self._passes = Passes()

    def __getitem__(self, key: tuple[Copy, npt.NDArray[np.int64]]) -> torch.Tensor:
        """The head's inputs for (copy, row numbers), on the network's device."""
        copy, rows = key
        return torch.from_numpy(self.of(copy)[np.searchsorted(self.rows, rows)]).to(self.device)

    def of(self, copy: Copy) -> npt.NDArray[np.float32]:
        """The features of all rows of a copy, (rows, ...), memory-mapped; computed if they are not cached yet."""
        if copy not in self._copies:
            path = self.folder / f"{self.key}-{copy}.npy"
            hold(self.folder.parent, [path])
            if not agreed(path.is_file()):
                self._compute(copy, path)
            self._copies[copy] = np.load(path, mmap_mode="r")
        return self._copies[copy]

    @torch.inference_mode()
    def pooled(self, copy: Copy) -> npt.NDArray[np.float32]:
        """The features before the classifier of all rows of a copy, (rows, features)."""
        inputs = self.of(copy)
        head: Callable[..., torch.Tensor] = self.network.forward_head  # type: ignore[assignment]
        with evaluating(self.network):
            blocks = (np.array(inputs[start : start + 4 * BLOCK]) for start in range(0, len(inputs), 4 * BLOCK))
            pooled = [head(torch.from_numpy(block).to(self.device), pre_logits=True) for block in blocks]
        return np.asarray(torch.cat(pooled).flatten(1).float().cpu().numpy())

    def _compute(self, copy: Copy, path: Path) -> None:
        blocks = shared(partial(self._block, copy), -(-len(self.rows) // BLOCK))
        with self.progress(f"features, {copy}", "patches") as report:
            if writes():
                self._write(blocks, path, report)
            else:
                deque(blocks, maxlen=0)
        wait_for_all()

    def _write(self, blocks: Iterator[npt.NDArray[np.float32]], path: Path, report: Callable[[int, int], None]) -> None:
        # Not memory-mapped: on a full disk the kernel would end the process without a word.
        done = 0
        with replacing(path) as partly, partly.open("wb") as file:
            for block in blocks:
                if not done:
                    check_space(path.parent, len(self.rows) * block[0].nbytes)
                    shape = (len(self.rows), *block.shape[1:])
                    header = {"descr": block.dtype.str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_2_0(file, header)
                file.write(np.ascontiguousarray(block).data)
                done += len(block)
                report(done, len(self.rows))

    @cached_property
    def _body(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """From standardised patches to the head's inputs; on the CPU with OpenVINO, if it gives the same.

        The network is in evaluation mode.
        """
        body = _Body(self.network, self.reduction)
        if self.device.type == "cpu":
            size = self.pixels.shape[1]
            example = torch.randn(6, 3, size, size, generator=torch.Generator().manual_seed(0))
            compiled, reason = compile_checked(body, example, difference=_first_difference)
            if compiled is not None:
                return lambda patches: compiled(patches)[0]
            logger.warning("the features are computed with PyTorch instead of OpenVINO, which takes longer: %s", reason)
        return lambda patches: body(patches)[0]

    @torch.inference_mode()
    def _block(self, copy: Copy, number: int) -> npt.NDArray[np.float32]:
        """The head's inputs for the rows of a block."""
        start = number * BLOCK
        block = np.asarray(self.pixels[self.rows[start : start + BLOCK]])
        pixels = torch.from_numpy(turned(block, copy.turn, axes=(1, 2))).to(self.device)
        noise = torch.Generator().manual_seed(_seed(copy.augmented, start))
        unit = augment_pixels(pixels, noise) if copy.augmented else unit_range(pixels)
        standardised = standardise(unit, self.mean, self.std).contiguous(memory_format=torch.channels_last)
        with evaluating(self.network), self.autocast():
            reduced = self._passes(self._body, standardised)
        return np.concatenate([part.float().cpu().numpy() for part in reduced])

    def _key(self, head: set[str], pixels_key: str) -> str:
        digest = hashlib.sha256()
        for name, value in self.network.state_dict().items():
            if name not in head:
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        digest.update(pixels_key.encode() or np.ascontiguousarray(self.pixels[self.rows]).data)
        digest.update(self.rows.tobytes())
        arithmetic = str(torch.get_autocast_dtype(self.device.type)) if self._is_mixed() else "float32"
        digest.update(repr((VERSION, self.mean, self.std, self.device.type, arithmetic)).encode())
        return digest.hexdigest()[:24]

    def _is_mixed(self) -> bool:
        with self.autocast():
            return torch.is_autocast_enabled(self.device.type)


def _seed(*numbers: int) -> int:
    """A seed of these numbers that differs in its lower 32 bits, the only ones that torch's generator uses."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class _Body(nn.Module):
    """The frozen part of a classifier, and the reduction of its output."""

    def __init__(self, network: nn.Module, reduction: Reduction):
        super().__init__()
        self.network, self.reduction = network, reduction

    def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.reduction(self.network.forward_features(patches)),)  # type: ignore[operator]


def _first_difference(wanted: Sequence[torch.Tensor], given: Sequence[torch.Tensor]) -> str:
    return rounding_exceeded(wanted[0].numpy(), given[0].numpy())


def is_cut_before_head(network: nn.Module, size: int) -> bool:
    """Whether the backbone's output is independent of the head's parameters, which train while it is frozen.

    For some architectures (DenseNet) timm's group matcher puts a backbone layer into the head's group; their features
    change from step to step.
    """
    device = next(network.parameters()).device
    with evaluating(network), torch.enable_grad():
        features = network.forward_features(torch.zeros(1, 3, size, size, device=device))  # type: ignore[operator]
    return not features.requires_grad


def head_reduction(network: nn.Module, size: int) -> Reduction:
    """The smallest reduction of the backbone's output for which the head gives the same logits.

    Most heads begin with global average pooling or use a single token; for them the full feature map need not be
    cached. Which reduction works is tested on random features for the given network.

    Args:
        network: a timm classifier.
        size: side of its input in pixels.
    """
    device = next(network.parameters()).device
    tokens = getattr(network, "num_prefix_tokens", 0)
    with evaluating(network), torch.inference_mode():
        shape = network.forward_features(torch.zeros(1, 3, size, size, device=device)).shape  # type: ignore[operator]
        probe = torch.randn(2, *shape[1:], generator=torch.Generator().manual_seed(0)).to(device)
        expected = network.forward_head(probe)  # type: ignore[operator]
        forms: list[Reduction] = []
        if len(shape) == 4:
            space = (2, 3) if shape[1] == network.num_features else (1, 2)
            forms = [lambda features: features.mean(space, keepdim=True)]
        elif len(shape) == 3:  # (patches, tokens, channels)
            forms = [
                lambda features: features[:, :1],
                lambda features: torch.cat([features[:, :tokens], features[:, tokens:].mean(1, keepdim=True)], 1),
            ]
        same = (torch.allclose(network.forward_head(form(probe)), expected, 1e-3, 1e-4) for form in forms)  # type: ignore[operator]
        return next((form for form, works in zip(forms, same, strict=True) if works), _unreduced)


def _unreduced(features: torch.Tensor) -> torch.Tensor:
    return features
