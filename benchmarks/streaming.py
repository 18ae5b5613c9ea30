"""`python -m benchmarks.streaming`: what a training step costs if its patches come from the disk instead of the memory.

Every step of the variants `from the disk` reads patches that no step has read before: the worst case, that of a cache much
larger than the memory. (Of the one file, the kernel reads further patches ahead, which are then in memory if that is free.)
The last columns are the reading alone, without the next batch being asked for. The variants run in turn in every repeat, each
with the same network and as many steps, and a ratio is taken within its repeat. Needs twice `--gigabytes` of disk, and a
kernel that lets go of a file's pages when asked (Linux).
"""

import argparse
import os
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks.augmentation import text
from benchmarks.training import CLASSES, SEED, interleaved, recipe
from doctogres.patches.joined import JoinedPixels
from doctogres.patches.parts import PART_BYTES, Part, Piece, header, pixel_bytes
from doctogres.training.samples import Samples
from doctogres.training.trainer import Trainer

# Network, side in pixels, patches per batch, batches per repeat.
LOOPS: Final = (("mobilenetv2_100", 96, 32, 6), ("mobilenetv2_100", 224, 8, 6), ("test_resnet", 64, 32, 24))
BASE: Final = "in memory"
READS: Final = 60  # batches


def written(path: Path, count: int, size: int) -> Part:
    """A file of `count` patches of noise, on the disk and not in memory."""
    block = np.random.default_rng(SEED).integers(0, 256, (64, size, size, 3), np.uint8).data
    part = Part(path, (Piece("", 0, count),), size)
    with path.open("wb") as file:
        file.write(header(count, size))
        for _ in range(count // 64):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return part


def joined(folder: Path, count: int, size: int) -> JoinedPixels:
    """The same in parts."""
    folder.mkdir()
    most = PART_BYTES // pixel_bytes(64, size) * 64
    counts = [min(most, count - first) for first in range(0, count, most)]
    parts = [written(folder / f"{number}.npy", number_of, size) for number, number_of in enumerate(counts)]
    return JoinedPixels(parts, np.arange(count), size)


class Steps:
    """Steps of a training, some per call, on rows that are new in every call or the same in all."""

    def __init__(self, pixels: Any, backbone: str, batch: int, steps: int, *, new: bool):
        count = len(pixels)
        samples = Samples(pixels, np.arange(count) % CLASSES, np.arange(count).astype(str), np.ones(count), "made")
        order = np.random.default_rng(SEED).permutation(count)
        calls = count // (batch * steps) if new else 1
        self.rows = np.resize(order, (calls, batch * steps))
        settings = recipe(backbone, batch_size=batch)
        arguments = (samples, np.sort(self.rows[0]), np.arange(0), CLASSES, settings, SEED, None)
        self.trainer = Trainer(*arguments, lambda *_: nullcontext(lambda *_: None))
        self.calls = 0

    def __call__(self) -> None:
        self.trainer.train = np.sort(self.rows[self.calls % len(self.rows)])
        self.trainer.train_epoch(self.calls, lambda *_: None)
        self.calls += 1


def reading(pixels: Any, batch: int) -> str:
    """Milliseconds to read a batch, of rows that `Steps` does not come to, and megabytes that the disk gave for it."""
    order = np.random.default_rng(SEED).permutation(len(pixels))[::-1]
    spent, before, batches = [], _read_bytes(), min(READS, len(order) // batch)
    for number in range(batches):
        rows = np.sort(order[number * batch : (number + 1) * batch])
        started = time.perf_counter()
        np.asarray(pixels[rows])
        spent.append(1000 * (time.perf_counter() - started))
    return f"{text(spent, 1)} | {(_read_bytes() - before) / batches / 1e6:.2f}"


def _read_bytes() -> int:
    """What this process has had read from disks."""
    return int(Path("/proc/self/io").read_text(encoding="ascii").partition("\nread_bytes: ")[2].split()[0])


def table(folder: Path, networks: list[str], gigabytes: float, repeats: int) -> None:
    """Prints a row per loop and variant."""
    titles = "network | px | batch | pixels | ms per step | times the step in memory, wall | CPU | ms per batch read | MB from the disk"
    print(f"| {titles} |\n{'|---' * 9}|")
    for backbone, size, batch, steps in (loop for loop in LOOPS if loop[0] in networks):
        count = int(gigabytes * 1e9 / pixel_bytes(64, size)) * 64
        few = -(-batch * steps // 64) * 64
        place = folder / f"{backbone}-{size}"
        parts, warm = joined(place, count, size), joined(folder / f"{backbone}-{size}-warm", few, size)
        single = np.load(written(place / "single.npy", count, size).path, mmap_mode="r")
        sources = {
            BASE: np.asarray(warm),
            "parts, in the page cache": warm,
            "parts, from the disk": parts,
            "one memory-mapped file, from the disk": single,
        }
        alone = {name: reading(pixels, batch) for name, pixels in sources.items()}
        costs = interleaved(
            {
                name: Steps(pixels, backbone, batch, steps, new="from the disk" in name)
                for name, pixels in sources.items()
            },
            repeats,
        )
        for name, own in costs.items():
            pairs = list(zip(own, costs[BASE], strict=True))
            ratios = [text([getattr(a, of) / getattr(b, of) for a, b in pairs]) for of in ("wall", "cpu")]
            spent = text([1000 * cost.wall / steps for cost in own], 1)
            print(
                f"| {backbone} | {size} | {batch} | {name} | {spent} | {' | '.join(ratios)} | {alone[name]} |",
                flush=True,
            )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=[loop[0] for loop in LOOPS])
    parser.add_argument("--gigabytes", type=float, default=2.0, help="pixels on the disk, twice (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="default: %(default)s")
    parser.add_argument("--folder", default=None, help="on the disk to be measured; default: that of temporary files")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        table(Path(folder), given.networks, given.gigabytes, given.repeats)


if __name__ == "__main__":
    main()
