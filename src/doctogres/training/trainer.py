"""The state and the steps of one training run, in one process or several.

All randomness in an epoch is derived from the seed, the epoch and the process, so that a training run can resume after
being killed without storing the state of its random generators.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from doctogres.errors import DoctogresError, ParameterError
from doctogres.model.ensemble import Ensemble, outputs_of
from doctogres.model.network import (
    check_patch_size,
    create_network,
    layer_groups,
    normalisation,
    standardise,
    unit_range,
)
from doctogres.model.passes import Passes
from doctogres.model.weights import NONE
from doctogres.patches.joined import read_ahead
from doctogres.settings import TrainSettings
from doctogres.training.augmentation import augment_pixels
from doctogres.training.features import PLAIN, Copy, FrozenFeatures, is_cut_before_head
from doctogres.training.mixing import mix, weighted_cross_entropy
from doctogres.training.optimizer import make_optimizer, set_learning_rates
from doctogres.training.probe import HeadRows, fit_head
from doctogres.training.samples import Samples, class_weights
from doctogres.training.schedule import apply_freezing, open_blocks, train_mode

logger: Final = logging.getLogger(__name__)
# Opens a progress report, given a label and a unit: a function of (done, total), closed at the end.
Progress = Callable[[str, str], AbstractContextManager[Callable[[int, int], None]]]


def make_accelerator(settings: TrainSettings) -> Accelerator:
    """Sets device and precision: bfloat16 on CUDA devices that support it, float32 elsewhere."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(settings.device, True):
        raise ParameterError(f"device={settings.device}: not available on this machine; give device=auto or device=cpu")
    cpu = settings.device == "cpu" or not any(available.values())
    bf16 = not cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    # Only the leader predicts the left-out folds and logs the model; the others wait for it.
    patient = InitProcessGroupKwargs(timeout=timedelta(hours=12))
    return Accelerator(cpu=cpu, mixed_precision="bf16" if bf16 else "no", kwargs_handlers=[patient])


def _batches(
    rows: npt.NDArray[np.int64], size: int, order: np.random.Generator, *, fewest: int
) -> Iterator[npt.NDArray[np.int64]]:
    shuffled = order.permutation(rows)
    for start in range(0, len(shuffled), size):
        batch = shuffled[start : start + size]
        if len(batch) >= fewest or len(shuffled) <= size:
            yield np.sort(batch)  # ascending reads of the memory map


class _Forward(nn.Module):
    """The forward pass from patches or from cached features, as one module that can be wrapped."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, inputs: torch.Tensor, kept_features: bool) -> Any:
        return self.network.forward_head(inputs) if kept_features else self.network(inputs)  # type: ignore[operator]


class Trainer:
    """The state of one training run; `train_network` is the loop, the methods are its steps."""

    def __init__(
        self,
        samples: Samples,
        train: npt.NDArray[np.int64],
        validation: npt.NDArray[np.int64],
        classes: int,
        settings: TrainSettings,
        seed: int,
        features: Path | None,
        progress: Progress,
    ):
        torch.manual_seed(seed)
        self.samples, self.train, self.classes, self.settings, self.seed = samples, train, classes, settings, seed
        self.accelerator = make_accelerator(settings)
        self.processes, self.process = self.accelerator.num_processes, self.accelerator.process_index
        network = create_network(
            settings.backbone,
            classes=classes,
            size=samples.pixels.shape[1],
            weights=settings.weights,
            normalisation=settings.normalisation,
            dropout=settings.dropout,
            stages=settings.stages,
        )
        check_patch_size(network, settings.backbone, samples.pixels.shape[1])
        self.mean, self.std = normalisation(network)
        self.groups = layer_groups(network)
        # Channels last makes convolutions a third faster on a CPU and suits a GPU's tensor cores.
        self.network = network.to(self.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.weights = torch.from_numpy(class_weights(samples.targets[train], classes)).to(self.accelerator.device)
        self.optimizer = make_optimizer(self.network, self.groups, settings)
        self.blocks_open = -1
        self.open_for(0)
        self.features: FrozenFeatures | None = None
        self.start = np.empty((0, 0))  # see `Trained`
        # Without pretrained weights there are no features for a probe to keep.
        probed, trains_on_features = settings.start == "probe" and settings.weights != NONE, self._trains_on_features
        if features and (probed or trains_on_features):
            rows, autocast = np.union1d(train, validation), self.accelerator.autocast
            frozen = FrozenFeatures(self.network, samples, rows, folder=features, autocast=autocast, progress=progress)
            self.start = self._start_from_probe(frozen, validation) if probed else self.start
            self.features = frozen if trains_on_features else None
        self.average = (
            AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)  # type: ignore[no-untyped-call]
            if settings.ema
            else None
        )
        self.batch_size = settings.batch_size * self.processes
        self.fewest = 2 * self.processes  # batch norm cannot train on a single patch
        self.passes = Passes()
        self.at_once: int | None = None  # patches that the device's memory holds in training, if not a whole step's
        full, rest = divmod(len(train), self.batch_size)
        self.steps_per_epoch: int = max(1, full + (rest >= self.fewest))
        self.step = 0

    @property
    def kept(self) -> nn.Module:
        """The network that is evaluated and kept."""
        return self.average.module if self.average else self.network

    @property
    def head_only(self) -> bool:
        return self.blocks_open == 0

    def open_for(self, epoch: int) -> None:
        count = open_blocks(epoch, blocks=len(self.groups) - 1, unfreeze_every=self.settings.unfreeze_every)
        if count == self.blocks_open:
            return
        apply_freezing(self.network, self.groups, count)
        self.blocks_open = count
        # The set of gradients that processes exchange is fixed when the network is wrapped, so it is wrapped again.
        forward = _Forward(self.network)
        self.forward: nn.Module = DistributedDataParallel(forward) if self.processes > 1 else forward

    @property
    def _trains_on_features(self) -> bool:
        """Whether the head is first trained on cached features: not where every epoch needs the pixels."""
        settings = self.settings
        mixes = settings.mixup or settings.cutmix
        if mixes or not (settings.feature_views and self.head_only):
            return False
        return is_cut_before_head(self.network, self.samples.pixels.shape[1])

    def _start_from_probe(self, frozen: FrozenFeatures, validation: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Makes a fitted probe the first head (LP-FT: Kumar et al., ICLR 2022) and returns its logits for the validation rows.

        A random head would first destroy the backbone's features.
        """
        settings, pooled = self.settings, frozen.pooled(PLAIN)
        of_training = pooled[np.searchsorted(frozen.rows, self.train)]
        targets, slides = self.samples.targets[self.train], self.samples.slide_ids[self.train]
        head = fit_head(HeadRows.equal(of_training, targets, slides), self.classes, settings)
        head.put_into(self.network, settings.backbone)
        return head.logits(pooled[np.searchsorted(frozen.rows, validation)].astype(np.float64))

    def _generator_seed(self, purpose: int, epoch: int) -> int:
        sequence = np.random.SeedSequence([self.seed, purpose, epoch, self.process])
        return int(sequence.generate_state(1, np.uint64)[0])

    @property
    def steps(self) -> int:
        """Number of steps of the whole training, without early stopping."""
        return self.settings.epochs * self.steps_per_epoch

    def train_epoch(self, epoch: int, report: Callable[[int, int], None]) -> tuple[float, float]:
        """Trains for one epoch; returns the loss and patches per second. `report` is called after every step."""
        train_mode(self.network)
        torch.manual_seed(self._generator_seed(1, epoch))  # for dropout and stochastic depth
        noise = torch.Generator().manual_seed(self._generator_seed(2, epoch))
        order = np.random.default_rng([self.seed, epoch])
        warmup = min(20, max(1, self.steps // 20))
        # Loss and weight; the sum over batches needs double precision, which Apple's devices do not have.
        total = torch.zeros(2, dtype=torch.float64)
        losses: list[torch.Tensor] = []
        started, patches = time.perf_counter(), 0
        for batch in self._read_ahead(_batches(self.train, self.batch_size, order, fewest=self.fewest)):
            set_learning_rates(self.optimizer, step=self.step, steps=self.steps, warmup=warmup)
            losses.append(self.train_step(batch, epoch, noise))
            self.step += 1
            patches += len(batch)
            report(self.step, self.steps)
        if losses:
            total = torch.stack(losses).cpu().double().sum(0)
        loss, weight = self._summed(total).tolist()
        return loss / weight if weight else 0.0, patches / (time.perf_counter() - started)

    def _read_ahead(self, batches: Iterator[npt.NDArray[np.int64]]) -> Iterator[npt.NDArray[np.int64]]:
        if self.features and self.head_only:  # no pixels are read
            return batches
        return read_ahead(self.samples.pixels, batches, share=slice(self.process, None, self.processes))

    def train_step(self, batch: npt.NDArray[np.int64], epoch: int, noise: torch.Generator) -> torch.Tensor:
        """One optimizer step on this process's share of the batch; returns the sums of the losses and of their weights.

        If the device's memory is not enough, the gradients of parts of the share are added up. Only batch norm and MixUp tell the
        difference.

        Raises:
            DoctogresError: the memory is not enough for two patches, or in one of several processes.
        """
        rows = batch[self.process :: self.processes]
        # The mean over all processes' patches: gradients are averaged over processes, the weights summed here.
        whole = self.weights[torch.from_numpy(self.samples.targets[batch]).to(self.weights.device)].sum()
        while True:
            parts = np.array_split(rows, -(-len(rows) // self.at_once)) if self.at_once else [rows]
            state = noise.get_state()
            try:
                sums = torch.stack([self._add_gradients(part, epoch, noise, whole) for part in parts]).sum(0)
                break
            except torch.OutOfMemoryError as error:
                largest = max(map(len, parts))
                if largest < 4 or self.processes > 1:  # batch norm cannot train on a single patch
                    raise DoctogresError(
                        f"the memory of the device is not enough to train on {largest} patches at once; give a smaller "
                        f"batch_size (now {self.settings.batch_size} for each process), patch_size or backbone ({error})"
                    ) from error
            # Outside of `except`, where the error would keep the tensors of the step alive.
            self.optimizer.zero_grad(set_to_none=True)
            noise.set_state(state)
            torch.cuda.empty_cache()
            self.at_once = largest // 2
            logger.warning(
                "the device's memory does not hold %d patches in training; steps of %d patches go on in parts of %d",
                *(largest, len(rows), self.at_once),
            )
        self.accelerator.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update_parameters(self.network)
        return sums

    def _add_gradients(
        self, rows: npt.NDArray[np.int64], epoch: int, noise: torch.Generator, whole: torch.Tensor
    ) -> torch.Tensor:
        """Adds the gradients of these rows' part of the mean loss; returns the sums of the losses and of their weights."""
        targets = torch.from_numpy(self.samples.targets[rows]).to(self.accelerator.device)
        inputs, kept_features = self._inputs(rows, epoch, noise)
        mixup, cutmix = self.settings.mixup, self.settings.cutmix
        if mixup or cutmix:
            inputs, targets = mix(inputs, targets, self.classes, mixup=mixup, cutmix=cutmix, generator=noise)
        if not kept_features:
            inputs = standardise(inputs, self.mean, self.std).contiguous(memory_format=torch.channels_last)
        with self.accelerator.autocast():
            logits = self.forward(inputs, kept_features)
        loss, weight = weighted_cross_entropy(logits.float(), targets, self.weights, self.settings.label_smoothing)
        self.accelerator.backward(loss * self.processes / whole)
        return torch.stack([loss.detach(), weight])

    def _inputs(self, rows: npt.NDArray[np.int64], epoch: int, noise: torch.Generator) -> tuple[torch.Tensor, bool]:
        """Cached features, or augmented patches in 0..1 (patches, 3, size, size), and whether they are features."""
        if self.features and self.head_only:
            number = 1 + epoch % self.settings.feature_views if self.settings.augmentation else 0
            return self.features[Copy(augmented=number), rows], True
        pixels = torch.from_numpy(self.samples.pixels[rows]).to(self.accelerator.device)
        augmented = augment_pixels(pixels, noise) if self.settings.augmentation else unit_range(pixels)
        return augmented, False

    def predict(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(rows, classes) probabilities in evaluation mode, combined from the shares of all processes."""
        probabilities = torch.zeros(len(rows), self.classes, dtype=torch.float64)
        share = np.arange(self.process, len(rows), self.processes)
        if self.features and self.head_only:
            self.features.of(PLAIN)  # computed by all processes together, also those that have no share
        for start in range(0, len(share), 256):
            places = share[start : start + 256]
            probabilities[places] = torch.from_numpy(self._probabilities(rows[places]))
        return self._summed(probabilities).numpy()

    def _probabilities(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        if self.features and self.head_only:
            with torch.inference_mode():
                self.kept.eval()
                logits: torch.Tensor = self.kept.forward_head(self.features[PLAIN, rows])  # type: ignore[operator]
                return logits.cpu().double().softmax(1).numpy()
        ensemble = Ensemble([self.kept])
        ensemble.passes = self.passes
        return outputs_of(ensemble, self.samples.pixels, rows=rows, mean=self.mean, std=self.std).of_patches()

    def _summed(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes of a double-precision tensor on the CPU."""
        if self.processes == 1:
            return values
        summed: torch.Tensor = self.accelerator.reduce(values.to(self.accelerator.device), reduction="sum")
        return summed.cpu()

    def state(self) -> dict[str, Any]:
        """Everything needed to resume the training, except the epochs done."""
        average = self.average.state_dict() if self.average else None
        optimizer = self.optimizer.state_dict()
        return {"network": self.network.state_dict(), "average": average, "optimizer": optimizer, "step": self.step}

    def restore(self, state: dict[str, Any], epochs: int) -> None:
        """Restores a state saved after `epochs` epochs."""
        self.open_for(epochs - 1)
        self.network.load_state_dict(state["network"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
