"""A killed training goes on as if nothing had happened; two processes train as one with twice the batch."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

SCRIPT = Path(__file__).with_name("coloured_squares.py")
ROOT = SCRIPT.parents[2]


def start(folder, recipe, *options, launcher=(sys.executable,)):
    folder.mkdir(exist_ok=True)
    command = [*launcher, str(SCRIPT), str(folder), "--recipe", json.dumps(recipe), *options]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def outcome(folder):
    return pd.read_csv(folder / "history.csv"), load_file(folder / "weights.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("kill_after", [0, 3])
def test_a_killed_training_ends_with_the_same_weights_as_one_that_was_not(kill_after, tmp_path):
    recipe = {"epochs": 6, "unfreeze_every": 2, "augmentation": True, "dropout": 0.3, "ema": 0.9, "feature_views": 2}
    assert start(tmp_path / "whole", recipe).returncode == 0
    killed = start(tmp_path / "killed", recipe, "--kill-after", str(kill_after))
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed/history.csv").exists()
    resumed = start(tmp_path / "killed", recipe)
    assert resumed.returncode == 0, resumed.stderr
    (history, weights), (wanted_history, wanted_weights) = outcome(tmp_path / "killed"), outcome(tmp_path / "whole")
    assert history.equals(wanted_history)
    assert weights.keys() == wanted_weights.keys()
    assert all(np.array_equal(weights[name], wanted_weights[name]) for name in weights)


@pytest.mark.slow
def test_two_processes_are_one_with_twice_the_batch(tmp_path):
    recipe = {"backbone": "test_convnext", "epochs": 5, "unfreeze_every": 2, "feature_views": 2}
    assert start(tmp_path / "one", {**recipe, "batch_size": 16}, "--slides", "36").returncode == 0
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    several = start(tmp_path / "two", {**recipe, "batch_size": 8}, "--slides", "36", launcher=launcher)
    assert several.returncode == 0, several.stderr
    history, weights = outcome(tmp_path / "two")
    wanted_history, wanted_weights = outcome(tmp_path / "one")
    assert np.allclose(history, wanted_history, rtol=1e-4)
    assert history.train_loss.iloc[-1] < history.train_loss.iloc[0]
    assert all(np.allclose(weights[name], wanted_weights[name], atol=1e-4) for name in weights)


@pytest.mark.slow
def test_the_features_of_a_frozen_backbone_are_shared_among_processes(tmp_path):
    """And each copy is computed once: the fourth request of the script finds the first one's."""
    command = [str(SCRIPT.with_name("frozen_features.py"))]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}

    def run(folder, *launcher):
        done = subprocess.run(
            [sys.executable, *launcher, *command, str(folder)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return sorted(line for line in done.stdout.splitlines() if line.startswith("computed"))

    blocks = 3 * -(-36 // 5)  # copies and blocks of five patches
    assert run(tmp_path / "one") == [f"computed {blocks} leader True"]
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    assert run(tmp_path / "two", *launcher) == [
        f"computed {blocks // 2} leader False",
        f"computed {blocks // 2} leader True",
    ]
    for file in (tmp_path / "one").iterdir():
        assert np.array_equal(np.load(file), np.load(tmp_path / "two" / file.name))
    assert len(list((tmp_path / "two").iterdir())) == 3
