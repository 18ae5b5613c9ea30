"""The pooled features of a source's patches by its frozen backbone, for a probe."""

import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from doctogres.model.ensemble import Ensemble, outputs_of
from doctogres.model.network import check_patch_size, create_network, normalisation
from doctogres.progress import counted
from doctogres.settings import TrainSettings
from doctogres.slides.turns import TURNS
from doctogres.training.features import Copy, FrozenFeatures
from doctogres.training.samples import Samples
from doctogres.training.sources import Source
from doctogres.training.trainer import Progress, make_accelerator

TIMED: Final = 16  # patches whose prediction is timed with and without test-time augmentation
Features = npt.NDArray[np.float32]  # (rows, features)


class ProbeFeatures:
    """The features before the classifier, for some rows of a source's patches.

    Args:
        source: backbone, weights and view.
        samples: the patches of the view.
        rows: row numbers, ascending, in disjoint sets: the features of each set are cached on their own.
        classes: number of classes.
        settings: of the training.
        seed: of random weights.
        folder: of the cache.
        progress: opens a progress report.
    """

    def __init__(
        self,
        source: Source,
        samples: Samples,
        rows: Sequence[npt.NDArray[np.int64]],
        *,
        classes: int,
        settings: TrainSettings,
        seed: int,
        folder: Path,
        progress: Progress,
    ):
        self.source, self.samples, self.classes, self.seed = source, samples, classes, seed
        together = np.concatenate(rows)
        self._order = np.argsort(together)
        self.rows = together[self._order]
        self.accelerator = make_accelerator(settings)
        self.network = self.new_network()
        check_patch_size(self.network, source.backbone, samples.pixels.shape[1])
        self.network.to(self.accelerator.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        autocast = self.accelerator.autocast
        self._frozen = [
            FrozenFeatures(self.network, samples, one, folder=folder, autocast=autocast, progress=progress)
            for one in rows
        ]

    def new_network(self) -> nn.Module:
        """The backbone with a head that is to be replaced."""
        torch.manual_seed(self.seed)
        size, source = self.samples.pixels.shape[1], self.source
        return create_network(
            source.backbone,
            classes=self.classes,
            size=size,
            weights=source.weights,
            normalisation=source.normalisation,
            stages=source.stages,
        )

    def turn(self, number: int) -> Features:
        """The features of all rows in one of the eight TURNS."""
        pooled = [frozen.pooled(Copy(turn=number)) for frozen in self._frozen]
        return pooled[0] if len(pooled) == 1 else np.concatenate(pooled)[self._order]

    @cached_property
    def plain(self) -> Features:
        """Without flips and rotations."""
        return self.turn(0)

    @cached_property
    def turns(self) -> list[Features]:
        """In all eight flips and rotations."""
        numbers = counted(range(len(TURNS)), "features", "turns", len(TURNS))
        return [self.turn(number) if number else self.plain for number in numbers]

    @cached_property
    def turned(self) -> Features:
        """The mean over the eight flips and rotations."""
        return np.asarray(np.mean(self.turns, axis=0, dtype=np.float64).astype(np.float32))

    def positions(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where these row numbers are among the features."""
        return np.searchsorted(self.rows, rows)

    @cached_property
    def seconds(self) -> tuple[float, float]:
        """Time taken for a few patches without and with test-time augmentation."""
        mean, std = normalisation(self.network)
        spent = []
        for tta in (False, True):
            started = time.perf_counter()
            outputs_of(
                Ensemble([self.network]), self.samples.pixels, rows=self.rows[:TIMED], mean=mean, std=std, tta=tta
            )
            spent.append(time.perf_counter() - started)
        return spent[0], spent[1]
