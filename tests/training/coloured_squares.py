"""An easy task: noisy squares, coloured by class. As a script, one training of it, for tests that start processes."""

import argparse
import json
import os
import signal
from pathlib import Path

import numpy as np
import torch

from doctogres.model.network import save_weights
from doctogres.settings import TrainSettings
from doctogres.training.loop import train_network
from doctogres.training.processes import is_leader
from doctogres.training.samples import Samples

COLOURS = np.array([(200, 60, 60), (60, 200, 60), (60, 60, 200)])
RECIPE = TrainSettings(
    backbone="test_resnet", weights="none", epochs=2, unfreeze_every=0, batch_size=8, learning_rate=1e-3,
    dropout=0.0, augmentation=False, device="cpu",
)  # fmt: skip


def coloured_squares(slides=18, *, classes=3, size=16, seed=0):
    """Two noisy squares per slide, coloured by class; the last third of the slides validates."""
    rng = np.random.default_rng(seed)
    slide = np.repeat(np.arange(slides), 2)
    targets = (slide % classes).astype(np.int64)
    pixels = COLOURS[targets][:, None, None] + rng.normal(0, 20, (len(slide), size, size, 3))
    samples = Samples(
        pixels=pixels.clip(0, 255).astype(np.uint8),
        targets=targets,
        slide_ids=np.array([f"img_{number:04d}" for number in slide]),
        areas=rng.uniform(200, 900, len(slide)),
    )
    rows = np.arange(len(slide))
    return samples, rows[slide < slides * 2 // 3], rows[slide >= slides * 2 // 3]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", type=json.loads, default={})
    parser.add_argument("--slides", type=int, default=18)
    parser.add_argument("--kill-after", type=int, default=-1)
    given = parser.parse_args()
    torch.set_num_threads(1)

    def on_epoch(epoch):
        if epoch.epoch == given.kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    trained = train_network(
        *coloured_squares(given.slides, size=32),
        classes=3,
        settings=RECIPE.model_copy(update=given.recipe),
        seed=5,
        on_epoch=on_epoch,
        checkpoint=given.folder / "state.pt",
        features=given.folder / "features",
    )
    if is_leader():
        trained.history.drop(columns="patches_per_s").to_csv(given.folder / "history.csv", index=False)
        np.save(given.folder / "probabilities.npy", trained.probabilities)
        save_weights(trained.network, given.folder / "weights.safetensors")


if __name__ == "__main__":
    main()
