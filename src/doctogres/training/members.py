"""The networks of a training run, one for each left-out fold; none is trained twice.

A finished network and its predictions for the left-out fold are stored in the workspace, under a key of everything they
depend on. How they are used later (ensemble, aggregation, calibration) is not part of the key.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd
import torch

from doctogres.files import workspace
from doctogres.model.network import build_network
from doctogres.patches.manifest import Manifest
from doctogres.progress import place
from doctogres.settings import Preset, TrainSettings
from doctogres.storage import DAY
from doctogres.training.checkpoint import load_checkpoint, save_checkpoint
from doctogres.training.folds import (
    FEATURES,
    FINISHED,
    NETWORKS,
    STATE,
    LeftOutFold,
    Member,
    Parts,
    reporting,
    split_folds,
)
from doctogres.training.left_out import LeftOutPredictions, predict_left_out
from doctogres.training.loop import Epoch, Trained, train_network
from doctogres.training.part import TrainingPart, training_parts
from doctogres.training.probes import ProbeSources
from doctogres.training.processes import broadcast, process_count
from doctogres.training.sources import chosen_views, sources_of

KEPT_BYTES: Final = 20 * 2**30  # of networks and their states; the least recently used are removed first
# Called with the left-out fold and each of its epochs.
OnEpoch = Callable[["LeftOutFold", Epoch], None]


@dataclass(frozen=True)
class Job:
    """Everything a process needs to train its share."""

    manifest: Manifest
    data: str
    recipe: Preset
    seed: int
    holdout: bool = False  # train on the hold-out, too
    finished: frozenset[str] = frozenset()  # keys of the networks that are already trained

    @property
    def settings(self) -> TrainSettings:
        """The settings of the training."""
        return self.recipe.train

    def folds(self, parts: Parts) -> list[LeftOutFold]:
        """The training of every network, fold by fold."""
        sources = sources_of(self.recipe, self.manifest.patch)
        splits = split_folds(self.settings, parts, sources, self.seed, holdout=self.holdout)
        return [fold for split in splits for fold in split.values()]


def train_members(job: Job, parts: Parts, *, on_epoch: OnEpoch, rerun: bool) -> list[Member]:
    """The networks for all left-out folds; those that are not finished yet are trained.

    Args:
        job: what to train.
        parts: the patches available for training, by view.
        on_epoch: called for every epoch, including those of finished networks.
        rerun: train all networks again.
    """
    folds = job.folds(parts)
    for fold in folds if rerun else ():
        fold.file.unlink(missing_ok=True)
        fold.checkpoint.unlink(missing_ok=True)
    if process_count() > 1:
        broadcast(replace(job, finished=frozenset(fold.key for fold in folds if fold.file.is_file())), job.settings)
    members = []
    for number, fold in enumerate(folds, 1):
        with place(f"network {number} of {len(folds)} ({fold.source}, {fold.name} left out)"):
            members.append(_finished(fold, parts, job, on_epoch) or _trained(fold, parts, job, on_epoch))
    _forget_oldest({fold.file for fold in folds})
    return members


def assist(settings: TrainSettings) -> None:
    """The work of a process that is not the leader (see `processes`): its share of what the leader sends, until dismissed."""
    while (job := broadcast(None, settings)) is not None:
        views = chosen_views(job.settings, job.manifest.patch)
        parts = training_parts(job.manifest, views, cache=workspace(), data=job.data)
        if job.settings.recipe == "probe":
            _probes(job, parts).compute()
            continue
        for fold in job.folds(parts):
            if fold.key not in job.finished:
                _network(fold, parts[fold.source.view], job, None)


def load_probes(job: Job, parts: Parts) -> ProbeSources:
    """The features for the probes of a job, computed by all processes together."""
    if process_count() > 1:
        broadcast(job, job.settings)
    probes = _probes(job, parts)
    probes.compute()
    return probes


def _probes(job: Job, parts: Parts) -> ProbeSources:
    sources = sources_of(job.recipe, job.manifest.patch)
    return ProbeSources.load(job.recipe, parts, sources, job.seed, holdout=job.holdout)


def dismiss(settings: TrainSettings) -> None:
    """Lets the other processes finish."""
    broadcast(None, settings)


def _network(fold: LeftOutFold, part: TrainingPart, job: Job, on_epoch: Callable[[Epoch], None] | None) -> Trained:
    return train_network(
        part.samples,
        fold.train,
        fold.left_out,
        classes=len(part.classes),
        settings=fold.source.settings(job.settings),
        seed=job.seed,
        on_epoch=on_epoch,
        checkpoint=fold.checkpoint,
        features=workspace() / FEATURES,
        progress=reporting,
    )


def _trained(fold: LeftOutFold, parts: Parts, job: Job, on_epoch: OnEpoch) -> Member:
    if fold.checkpoint.is_file():
        print(f"train: resuming the network for {fold.name} from {fold.checkpoint}", flush=True)
    part = parts[fold.source.view]
    trained = _network(fold, part, job, partial(on_epoch, fold))
    predictions = predict_left_out(
        trained.network,
        part.samples,
        fold.train,
        fold.left_out,
        classes=len(part.classes),
        seed=job.seed,
        start=trained.start,
    )
    trained.network.cpu()
    save_checkpoint(_state(trained, predictions), fold.file)
    fold.checkpoint.unlink(missing_ok=True)
    return Member(fold, predictions, trained)


def _state(trained: Trained, predictions: LeftOutPredictions) -> dict[str, Any]:
    return {
        "network": trained.network.state_dict(),
        "history": trained.history.to_dict("records"),
        "best": trained.best.epoch,
        "probabilities": torch.from_numpy(trained.probabilities),
        "single_class": trained.single_class,
        "predictions": predictions.state(),
    }


def _finished(fold: LeftOutFold, parts: Parts, job: Job, on_epoch: OnEpoch) -> Member | None:
    """The network of an earlier run, if there is one."""
    if not fold.file.is_file():
        return None
    state = load_checkpoint(fold.file, torch.device("cpu"))
    part = parts[fold.source.view]
    classes, size = len(part.classes), part.samples.pixels.shape[1]
    network = build_network(fold.source.architecture, classes=classes, size=size, dropout=job.settings.dropout)
    network.load_state_dict(state["network"])
    history = pd.DataFrame(state["history"])
    trained = Trained(
        network.eval(),
        history,
        Epoch(**state["history"][state["best"]]),
        state["probabilities"].numpy(),
        state["single_class"],
        state["predictions"]["start"].numpy(),
    )
    for epoch in state["history"]:
        on_epoch(fold, Epoch(**epoch))
    fold.file.touch()  # its modification time records the last use
    print(f"train: reusing the network for {fold.name} from {fold.file}", flush=True)
    return Member(fold, LeftOutPredictions.from_state(state["predictions"]), trained)


def _forget_oldest(used: set[Path]) -> None:
    """Removes the least recently used networks and states of interrupted trainings beyond the size limit.

    What this training uses stays, and so does a state that was written in the last day: another training in this workspace may
    still be running, and writes its state after every epoch.
    """
    found = []
    for file in (workspace() / NETWORKS).glob("*"):
        if file.suffix in (FINISHED, STATE):
            with suppress(FileNotFoundError):  # another training has just removed or finished it
                status = file.stat()
                found.append((status.st_mtime, status.st_size, file))
    latest, total = time.time() - DAY, 0
    for changed, size, file in sorted(found, reverse=True):
        total += size
        running = file.suffix == STATE and changed > latest
        if total > KEPT_BYTES and file not in used and not running:
            file.unlink(missing_ok=True)
