"""A training state that does not fit on the disk."""

from pathlib import Path

import pytest
import torch

from doctogres.errors import DiskFullError
from doctogres.training.checkpoint import load_checkpoint, save_checkpoint
from tests.disks import small_disk


def test_a_full_disk_is_named_and_the_earlier_state_is_kept(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", kilobytes=200) as disk:
        path = disk.path / "fold0.checkpoint"
        save_checkpoint({"epoch": 1, "weights": torch.zeros(10_000)}, path)
        with pytest.raises(DiskFullError, match=f"^{disk.path}: .* needed, 1.* kB free"):
            save_checkpoint({"epoch": 2, "weights": torch.zeros(100_000)}, path)
        assert load_checkpoint(path, torch.device("cpu"))["epoch"] == 1
        assert list(disk.path.iterdir()) == [path]
