"""The networks of a training run, one for each left-out fold; none is trained twice.

A finished network and its predictions for the left-out fold are stored in the workspace, under a key of everything they
depend on. How they are used later (ensemble, aggregation, calibration) is not part of the key.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch

from doctogres.errors import ParameterError
from doctogres.files import digest_of, workspace
from doctogres.model.encoder import architecture_of
from doctogres.model.network import build_network
from doctogres.patches.manifest import Manifest
from doctogres.progress import reporter
from doctogres.settings import ENSEMBLE_SETTINGS, TrainSettings
from doctogres.tracking.fingerprints import fingerprint
from doctogres.training.checkpoint import load_checkpoint, save_checkpoint
from doctogres.training.left_out import LeftOutPredictions, predict_left_out
from doctogres.training.loop import Epoch, Trained, train_network
from doctogres.training.part import Rows, TrainingPart, training_part
from doctogres.training.processes import broadcast, is_leader, process_count

FEATURES: Final = "features"  # folder in the workspace
NETWORKS: Final = "networks"
KEPT_BYTES: Final = 20 * 2**30  # of finished networks; the least recently used are removed first
# Called with the left-out fold and each of its epochs.
OnEpoch = Callable[["LeftOutFold", Epoch], None]


@dataclass(frozen=True)
class LeftOutFold:
    """The training rows of one network, and the fold left out."""

    repeat: int  # 0 for the manifest's folds, otherwise the number of a new random split
    fold: str
    train: Rows
    left_out: Rows
    key: str  # digest of everything the network depends on

    @property
    def name(self) -> str:
        """The name used in messages."""
        return self.fold if not self.repeat else f"{self.fold} of repeat {self.repeat + 1}"

    @property
    def file(self) -> Path:
        """The file of the finished network."""
        return workspace() / NETWORKS / f"{self.key}.pt"

    @property
    def checkpoint(self) -> Path:
        """The file of the training state until the network is finished."""
        return self.file.with_suffix(".checkpoint")


@dataclass(frozen=True)
class Member:
    """A trained network on the CPU, and its predictions for the left-out fold."""

    split: LeftOutFold
    trained: Trained
    predictions: LeftOutPredictions


@dataclass(frozen=True)
class Job:
    """Everything a process needs to train its share."""

    manifest: Manifest
    data: str
    settings: TrainSettings
    seed: int
    finished: frozenset[str] = frozenset()  # keys of the networks that are already trained


def check_folds(settings: TrainSettings, folds: int) -> None:
    """Checks `oof_folds` and `repeats` against the number of folds.

    Raises:
        ParameterError: names the setting and what is allowed.
    """
    if settings.oof_folds > folds:
        raise ParameterError(f"oof_folds={settings.oof_folds}: the cohort has only {folds} folds; give at most {folds}")
    if settings.repeats > 1 and settings.oof_folds not in (0, folds):
        raise ParameterError(
            f"repeats={settings.repeats}: needs every fold left out once, so that all repeats predict the same slides; "
            f"give oof_folds=0, not {settings.oof_folds}"
        )


def left_out_folds(part: TrainingPart, settings: TrainSettings, seed: int) -> list[LeftOutFold]:
    """Every fold that is left out in turn, in every repeat."""
    recipe = settings.model_dump(exclude=set(ENSEMBLE_SETTINGS)) | {"seed": seed, "processes": process_count()}
    described = part.patches.table[["patch_id", "slide_id", "label", "area"]]

    def fold_of(repeat: int, fold: str) -> LeftOutFold:
        train, left_out = part.rows(fold, repeat=repeat, seed=seed)
        digests = {
            name: digest_of(described.iloc[rows].to_csv()) for name, rows in (("train", train), ("left out", left_out))
        }
        inputs = {**digests, "pixels": part.samples.pixels_key, "classes": digest_of(part.classes)}
        return LeftOutFold(repeat, fold, train, left_out, fingerprint(__name__, recipe, inputs))

    folds = part.folds[: settings.oof_folds or None]
    return [fold_of(repeat, fold) for repeat in range(settings.repeats) for fold in folds]


def train_members(job: Job, part: TrainingPart, *, on_epoch: OnEpoch, rerun: bool) -> list[Member]:
    """The networks for all left-out folds; those that are not finished yet are trained.

    Args:
        job: what to train.
        part: the patches available for training.
        on_epoch: called for every epoch, including those of finished networks.
        rerun: train all networks again.
    """
    folds = left_out_folds(part, job.settings, job.seed)
    for fold in folds if rerun else ():
        fold.file.unlink(missing_ok=True)
        fold.checkpoint.unlink(missing_ok=True)
    if process_count() > 1:
        broadcast(replace(job, finished=frozenset(fold.key for fold in folds if fold.file.is_file())), job.settings)
    members = [_finished(fold, part, job, on_epoch) or _trained(fold, part, job, on_epoch) for fold in folds]
    _forget_oldest({fold.file for fold in folds})
    return members


def assist(settings: TrainSettings) -> None:
    """The work of a process that is not the leader (see `processes`): trains what the leader sends until dismissed."""
    while (job := broadcast(None, settings)) is not None:
        part = training_part(job.manifest, cache=workspace(), data=job.data)
        for fold in left_out_folds(part, job.settings, job.seed):
            if fold.key not in job.finished:
                _network(fold, part, job, None)


def dismiss(settings: TrainSettings) -> None:
    """Lets the other processes finish."""
    broadcast(None, settings)


def reporting(label: str, what: str, unit: str) -> AbstractContextManager[Callable[[int, int], None]]:
    """Opens a progress report for `train_network`; only the leading process shows it."""
    return reporter(f"{label}: {what}", unit) if is_leader() else nullcontext(lambda done, total: None)


def _network(fold: LeftOutFold, part: TrainingPart, job: Job, on_epoch: Callable[[Epoch], None] | None) -> Trained:
    return train_network(
        part.samples,
        fold.train,
        fold.left_out,
        classes=len(part.classes),
        settings=job.settings,
        seed=job.seed,
        on_epoch=on_epoch,
        checkpoint=fold.checkpoint,
        features=workspace() / FEATURES,
        progress=partial(reporting, f"train ({fold.name} left out)"),
    )


def _trained(fold: LeftOutFold, part: TrainingPart, job: Job, on_epoch: OnEpoch) -> Member:
    if fold.checkpoint.is_file():
        print(f"train: resuming the network for {fold.name} from {fold.checkpoint}", flush=True)
    trained = _network(fold, part, job, partial(on_epoch, fold))
    predictions = predict_left_out(
        trained.network, part.samples, fold.train, fold.left_out, classes=len(part.classes), seed=job.seed
    )
    trained.network.cpu()
    save_checkpoint(_state(trained, predictions), fold.file)
    fold.checkpoint.unlink(missing_ok=True)
    return Member(fold, trained, predictions)


def _state(trained: Trained, predictions: LeftOutPredictions) -> dict[str, Any]:
    return {
        "network": trained.network.state_dict(),
        "history": trained.history.to_dict("records"),
        "best": trained.best.epoch,
        "probabilities": torch.from_numpy(trained.probabilities),
        "single_class": trained.single_class,
        "predictions": predictions.state(),
    }


def _finished(fold: LeftOutFold, part: TrainingPart, job: Job, on_epoch: OnEpoch) -> Member | None:
    """The network of an earlier run, if there is one."""
    if not fold.file.is_file():
        return None
    state = load_checkpoint(fold.file, torch.device("cpu"))
    classes, size = len(part.classes), part.samples.pixels.shape[1]
    settings = job.settings
    architecture = architecture_of(settings.backbone, settings.weights, settings.normalisation)
    network = build_network(architecture, classes=classes, size=size, dropout=settings.dropout)
    network.load_state_dict(state["network"])
    history = pd.DataFrame(state["history"])
    trained = Trained(
        network.eval(),
        history,
        Epoch(**state["history"][state["best"]]),
        state["probabilities"].numpy(),
        state["single_class"],
    )
    for epoch in state["history"]:
        on_epoch(fold, Epoch(**epoch))
    fold.file.touch()  # its modification time records the last use
    print(f"train: reusing the network for {fold.name} from {fold.file}", flush=True)
    return Member(fold, trained, LeftOutPredictions.from_state(state["predictions"]))


def _forget_oldest(used: set[Path]) -> None:
    """Removes the least recently used networks beyond the size limit, but none that are in use."""
    files = sorted((workspace() / NETWORKS).glob("*.pt"), key=lambda file: -file.stat().st_mtime)
    total = 0
    for file in files:
        total += file.stat().st_size
        if total > KEPT_BYTES and file not in used:
            file.unlink()
