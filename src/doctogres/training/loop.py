"""The training loop for one network with one validation fold, in one process or several."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from doctogres.errors import ParameterError
from doctogres.evaluation.metrics import macro_f1
from doctogres.progress import place
from doctogres.settings import TrainSettings
from doctogres.training.checkpoint import load_checkpoint, save_checkpoint
from doctogres.training.samples import Samples, slide_scores
from doctogres.training.trainer import Progress, Trainer


@dataclass(frozen=True)
class Epoch:
    """The record of an epoch; losses are weighted means over patches, learning_rate is the head's."""

    epoch: int
    train_loss: float
    val_loss: float
    patch_macro_f1: float
    slide_macro_f1: float
    learning_rate: float
    trainable_parameters: int
    open_blocks: int
    patches_per_s: float

    @property
    def curves(self) -> dict[str, float]:
        """The values that are plotted over the epochs: all except the epoch number."""
        return {name: float(value) for name, value in asdict(self).items() if name != "epoch"}


@dataclass(frozen=True)
class Trained:
    """The best epoch's network (on its device), the curves, and the validation fold's patch probabilities."""

    network: nn.Module
    history: pd.DataFrame
    best: Epoch
    probabilities: npt.NDArray[np.float64]  # (validation patches, classes)
    single_class: bool  # the best network predicts one class for every validation slide
    start: npt.NDArray[
        np.float64
    ]  # (validation patches, classes) logits of the probe it started from; empty without one


@dataclass(frozen=True)
class _Best:
    epoch: Epoch
    state: dict[str, torch.Tensor]
    probabilities: npt.NDArray[np.float64]


def train_network(
    samples: Samples,
    train: npt.NDArray[np.int64],
    validation: npt.NDArray[np.int64],
    *,
    classes: int,
    settings: TrainSettings,
    seed: int,
    on_epoch: Callable[[Epoch], None] | None = None,
    checkpoint: Path | None = None,
    features: Path | None = None,
    progress: Progress = lambda what, unit: nullcontext(lambda done, total: None),
) -> Trained:
    """Trains a patch classifier and keeps the epoch with the best slide-level macro-F1 on the validation fold.

    Ties are resolved by the lower validation loss. Training stops after `patience` epochs without improvement.

    Args:
        samples: patches.
        train: row numbers to train on, ascending.
        validation: row numbers of the fold that chooses the epoch, ascending.
        classes: number of classes.
        settings: the training settings.
        seed: seed for weights, order and augmentation.
        on_epoch: called after every epoch, and immediately for epochs of an earlier process; an exception that it raises
            ends the training (a pruned trial).
        checkpoint: file for the state after every epoch; if it exists, training resumes from it.
        features: folder in which a frozen backbone's features are cached; without it they are not cached.
        progress: opens a progress report, given a label and a unit.

    Raises:
        ParameterError: the training rows or the validation fold are empty.
    """
    if not len(train) or not len(validation):
        raise ParameterError("train: the training or validation folds contain no patches; use fewer folds")
    trainer = Trainer(samples, train, validation, classes, settings, seed, features, progress)
    truth = torch.from_numpy(samples.targets[validation])
    epochs, best = _restored(trainer, checkpoint)
    for epoch in epochs:
        if on_epoch:
            on_epoch(epoch)
    with progress("training", "steps") as report:
        report(trainer.step, trainer.steps)
        for number in range(len(epochs), settings.epochs):
            if best is not None and number - 1 - best.epoch.epoch >= settings.patience:
                break
            trainer.open_for(number)
            with place(f"epoch {number + 1} of {settings.epochs}"):
                loss, rate = trainer.train_epoch(number, report)
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
            rank = (epoch.slide_macro_f1, -epoch.val_loss)
            if best is None or rank > (best.epoch.slide_macro_f1, -best.epoch.val_loss):
                state = {name: value.detach().clone() for name, value in trainer.kept.state_dict().items()}
                best = _Best(epoch, state, probabilities)
            if checkpoint and trainer.accelerator.is_main_process:
                _save(trainer, epochs, best, checkpoint)
            if on_epoch:
                on_epoch(epoch)
    assert best is not None  # epochs >= 1
    trainer.network.load_state_dict(best.state)
    predicted = slide_scores(samples, validation, best.probabilities, classes)[1]
    history = pd.DataFrame([asdict(epoch) for epoch in epochs])
    single_class = len(set(predicted.tolist())) == 1
    return Trained(trainer.network, history, best.epoch, best.probabilities, single_class, trainer.start)


def _save(trainer: Trainer, epochs: list[Epoch], best: _Best, path: Path) -> None:
    kept = {"epoch": best.epoch.epoch, "state": best.state, "probabilities": torch.from_numpy(best.probabilities)}
    save_checkpoint({"trainer": trainer.state(), "epochs": [asdict(epoch) for epoch in epochs], "best": kept}, path)


def _restored(trainer: Trainer, path: Path | None) -> tuple[list[Epoch], _Best | None]:
    """Restores the trainer's state from an earlier process; returns its finished epochs and the best of them."""
    if path is None or not path.is_file():
        return [], None
    content = load_checkpoint(path, trainer.accelerator.device)
    epochs = [Epoch(**epoch) for epoch in content["epochs"]]
    trainer.restore(content["trainer"], len(epochs))
    best = content["best"]
    return epochs, _Best(epochs[best["epoch"]], best["state"], best["probabilities"].cpu().numpy())
