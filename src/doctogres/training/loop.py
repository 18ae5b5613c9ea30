"""The training loop: one network, one training part, one validation fold."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from doctogres.aggregation import aggregate_slides
from doctogres.errors import ParameterError
from doctogres.evaluation.metrics import macro_f1
from doctogres.network import create_network, layer_groups, normalisation, patch_probabilities, standardise
from doctogres.settings import TrainSettings
from doctogres.training.augmentation import augment
from doctogres.training.optimizer import add_opened, make_optimizer, set_learning_rates
from doctogres.training.schedule import apply_freezing, open_blocks, train_mode


@dataclass(frozen=True)
class Samples:
    """Patches with what training needs to know of each, row for row."""

    pixels: npt.NDArray[np.uint8]  # (patches, size, size, 3), memory-mapped or not
    targets: npt.NDArray[np.int64]  # (patches,) class index
    slide_ids: npt.NDArray[np.str_]  # (patches,)
    areas: npt.NDArray[np.float64]  # (patches,) pixels


@dataclass(frozen=True)
class Epoch:
    """What is recorded of an epoch; losses are means over patches, learning_rate is the head's."""

    epoch: int
    train_loss: float
    val_loss: float
    patch_macro_f1: float
    slide_macro_f1: float
    learning_rate: float
    trainable_parameters: int
    open_blocks: int
    patches_per_s: float


@dataclass(frozen=True)
class Trained:
    """The best epoch's network (on its device), the curves, and the validation fold's patch probabilities."""

    network: nn.Module
    history: pd.DataFrame
    best: Epoch
    probabilities: npt.NDArray[np.float64]  # (validation patches, classes)
    single_class: bool  # the best network predicts one class for every validation slide


def class_weights(targets: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.float32]:
    """Weights of the cross-entropy, inverse to the class's share of the training patches: (classes,), mean 1 per patch.

    A class without any training patch weighs nothing.
    """
    counts = np.bincount(targets, minlength=classes)
    with np.errstate(divide="ignore"):
        weights = np.where(counts > 0, len(targets) / (np.count_nonzero(counts) * counts), 0.0)
    return weights.astype(np.float32)


def make_accelerator(settings: TrainSettings) -> Accelerator:
    """Owns device and precision: bfloat16 where a CUDA device has it, float32 elsewhere."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(settings.device, True):
        raise ParameterError(f"device={settings.device}: this machine has none; give device=auto or device=cpu")
    cpu = settings.device == "cpu" or not any(there.values())
    bf16 = not cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return Accelerator(cpu=cpu, mixed_precision="bf16" if bf16 else "no")


def slide_scores(
    samples: Samples, rows: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64], classes: int
) -> tuple[float, npt.NDArray[np.int64]]:
    """Slide-level macro-F1 of patch probabilities (mean over the slide's patches), and each slide's predicted class."""
    slides, means = aggregate_slides(
        samples.slide_ids[rows].tolist(), probabilities, samples.areas[rows], method="mean"
    )
    truth_of = dict(zip(samples.slide_ids[rows].tolist(), samples.targets[rows].tolist(), strict=True))
    truth = np.array([truth_of[slide] for slide in slides])
    predicted = means.argmax(1)
    return macro_f1(truth, predicted, classes), predicted


def _batches(rows: npt.NDArray[np.int64], size: int, order: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    shuffled = order.permutation(rows)
    for start in range(0, len(shuffled), size):
        batch = shuffled[start : start + size]
        if len(batch) > 1 or len(shuffled) == 1:  # batch norm cannot train on a single patch
            yield np.sort(batch)  # ascending reads of the memory map


class _Trainer:
    """State of one training; `run` is the loop, the other methods are its steps."""

    def __init__(
        self, samples: Samples, train: npt.NDArray[np.int64], classes: int, settings: TrainSettings, seed: int
    ):
        torch.manual_seed(seed)
        self.samples, self.train, self.classes, self.settings = samples, train, classes, settings
        self.accelerator = make_accelerator(settings)
        network = create_network(
            settings.backbone,
            classes=classes,
            size=samples.pixels.shape[1],
            weights=settings.weights,
            dropout=settings.dropout,
        )
        self.mean, self.std = normalisation(network)
        self.groups = layer_groups(network)
        self.network = network.to(self.accelerator.device)
        self.weights = torch.from_numpy(class_weights(samples.targets[train], classes)).to(self.accelerator.device)
        self.order = np.random.default_rng([seed, 1])
        self.noise = torch.Generator().manual_seed(seed)
        self.blocks_open = open_blocks(0, blocks=len(self.groups) - 1, unfreeze_every=settings.unfreeze_every)
        apply_freezing(self.network, self.groups, self.blocks_open)
        self.optimizer = make_optimizer(self.network, self.groups, settings)
        full, rest = divmod(len(train), settings.batch_size)
        self.steps_per_epoch = max(1, full + (rest > 1))  # `_batches` leaves out a batch of one
        self.step = 0

    def open_for(self, epoch: int) -> None:
        wanted = open_blocks(epoch, blocks=len(self.groups) - 1, unfreeze_every=self.settings.unfreeze_every)
        if wanted != self.blocks_open:
            apply_freezing(self.network, self.groups, wanted)
            add_opened(self.optimizer, self.network, self.groups, self.settings)
            self.blocks_open = wanted

    def train_epoch(self) -> tuple[float, float]:
        """One pass; returns the mean loss and patches per second."""
        train_mode(self.network)
        steps = self.settings.epochs * self.steps_per_epoch
        total = torch.zeros((), dtype=torch.float64, device=self.accelerator.device)
        started, seen = time.perf_counter(), 0
        for batch in _batches(self.train, self.settings.batch_size, self.order):
            set_learning_rates(self.optimizer, step=self.step, steps=steps, warmup=min(20, max(1, steps // 20)))
            total += self.train_step(batch).double() * len(batch)
            self.step += 1
            seen += len(batch)
        return float(total) / max(seen, 1), seen / (time.perf_counter() - started)

    def train_step(self, batch: npt.NDArray[np.int64]) -> torch.Tensor:
        pixels = torch.from_numpy(self.samples.pixels[batch]).to(self.accelerator.device)
        targets = torch.from_numpy(self.samples.targets[batch]).to(self.accelerator.device)
        unit = pixels.permute(0, 3, 1, 2).float().div_(255)
        if self.settings.augmentation:
            unit = augment(unit, self.noise)
        with self.accelerator.autocast():
            logits = self.network(standardise(unit, self.mean, self.std))
            loss = F.cross_entropy(
                logits.float(), targets, weight=self.weights, label_smoothing=self.settings.label_smoothing
            )
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def predict(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """(rows, classes) probabilities in evaluation mode, read in blocks of ascending rows."""
        blocks = [
            patch_probabilities(
                self.network, self.samples.pixels[rows[start : start + 256]], mean=self.mean, std=self.std
            )
            for start in range(0, len(rows), 256)
        ]
        return torch.cat(blocks).numpy()


def train_network(
    samples: Samples,
    train: npt.NDArray[np.int64],
    validation: npt.NDArray[np.int64],
    *,
    classes: int,
    settings: TrainSettings,
    seed: int,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Trained:
    """Trains a patch classifier and keeps the epoch with the best slide-level macro-F1 of the validation fold.

    Ties go to the lower validation loss. Training stops after `patience` epochs without a better one.

    Args:
        samples: patches.
        train: row numbers to train on, ascending.
        validation: row numbers of the fold that chooses the epoch, ascending.
        classes: number of classes.
        settings: the recipe.
        seed: of weights, order and augmentation.
        on_epoch: called after every epoch; what it raises ends the training (a pruned trial).
    """
    trainer = _Trainer(samples, train, classes, settings, seed)
    truth = torch.from_numpy(samples.targets[validation])
    epochs: list[Epoch] = []
    best: tuple[Epoch, dict[str, torch.Tensor], npt.NDArray[np.float64]] | None = None
    for number in range(settings.epochs):
        trainer.open_for(number)
        loss, rate = trainer.train_epoch()
        probabilities = trainer.predict(validation)
        clipped = torch.from_numpy(probabilities).clamp_min(1e-12).log()
        epoch = Epoch(
            epoch=number,
            train_loss=loss,
            val_loss=float(F.nll_loss(clipped, truth)),
            patch_macro_f1=macro_f1(samples.targets[validation], probabilities.argmax(1), classes),
            slide_macro_f1=slide_scores(samples, validation, probabilities, classes)[0],
            learning_rate=float(trainer.optimizer.param_groups[0]["lr"]),
            trainable_parameters=sum(p.numel() for p in trainer.network.parameters() if p.requires_grad),
            open_blocks=trainer.blocks_open,
            patches_per_s=rate,
        )
        epochs.append(epoch)
        if best is None or (epoch.slide_macro_f1, -epoch.val_loss) > (best[0].slide_macro_f1, -best[0].val_loss):
            state = {name: value.detach().clone() for name, value in trainer.network.state_dict().items()}
            best = epoch, state, probabilities
        if on_epoch:
            on_epoch(epoch)
        if number - best[0].epoch >= settings.patience:
            break
    assert best is not None  # epochs >= 1
    trainer.network.load_state_dict(best[1])
    predicted = slide_scores(samples, validation, best[2], classes)[1]
    history = pd.DataFrame([asdict(epoch) for epoch in epochs])
    return Trained(trainer.network, history, best[0], best[2], single_class=len(set(predicted.tolist())) == 1)
