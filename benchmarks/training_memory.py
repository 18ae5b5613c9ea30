"""`python -m benchmarks.training_memory [number] [sides]`: peak memory of training.

`number`: ours on 1,000 and on 50,000 patches. `sides`: ours, timm's and the challenge team's notebook's on the same
2,000. Each is a fresh process with one thread; this one looks at it and its workers twice a second. For `number` the
pixels are a sparse file that fills no disk: what the patches show does not change the memory they take.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import psutil

NUMBERS: Final = (1_000, 50_000)
SIZES: Final = {64: 4, 224: 48}  # side in pixels -> of 50,000 patches, the epoch takes every fourth, every 48th
SIDE_PATCHES: Final = 2_000
SECTIONS: Final = ("number", "sides")


def of_number(folder: Path, count: int, size: int) -> Callable[[], object]:
    """An epoch of `test_resnet`, all open, with augmentation; a tenth of the patches validates."""
    from benchmarks.training import CLASSES, SEED, recipe
    from doctogres.training.loop import train_network
    from doctogres.training.samples import Samples

    path = folder / f"{count}-{size}.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (count, size, size, 3)).flush()
    slides = np.arange(count) // 8
    samples = Samples(
        pixels=np.load(path, mmap_mode="r"),
        targets=(slides % CLASSES).astype(np.int64),
        slide_ids=np.array([f"img_{slide:05d}" for slide in slides]),
        areas=np.full(count, 400.0),
        pixels_key=path.stem,
    )
    rows = np.arange(0, count, SIZES[size] if count == max(NUMBERS) else 1)
    validates = np.arange(len(rows)) % 10 == 0
    settings = recipe("test_resnet", epochs=1)
    return lambda: train_network(
        samples, rows[~validates], rows[validates], classes=CLASSES, settings=settings, seed=SEED
    )


def of_side(folder: Path, name: str) -> Callable[[], object]:
    """An epoch of one of `benchmarks.training`'s loops."""
    from benchmarks.training import SIDES, made_samples

    return SIDES[name](made_samples(SIDE_PATCHES, 96, folder), folder)


def highest() -> float:
    """MiB: this process's largest resident size so far (Linux's VmHWM)."""
    return _field(Path("/proc/self/status"), "VmHWM")


def _field(path: Path, name: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", path.read_text(encoding="ascii"), re.MULTILINE)
    return int(found[1]) / 1024 if found else 0.0


def look(process: psutil.Process) -> tuple[float, float]:
    """MiB of the process and its workers: all, and what is not a file's pages; shared pages count once."""
    whole, own = 0.0, 0.0
    for each in [process, *process.children(recursive=True)]:
        try:
            path = Path(f"/proc/{each.pid}/smaps_rollup")
            whole += _field(path, "Pss")
            own += _field(path, "Pss") - _field(path, "Pss_File")
        except OSError:  # it has just ended
            continue
    return whole, own


def watched(section: str, folder: Path, *given: object) -> list[str]:
    """Columns: MiB with the libraries loaded, the peak, and the peaks of the process with its workers."""
    command = [sys.executable, "-m", "benchmarks.training_memory", section, "--measure", str(folder), *map(str, given)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    seen, watch = [(0.0, 0.0)], psutil.Process(process.pid)
    while process.poll() is None:
        try:
            seen.append(look(watch))
        except psutil.NoSuchProcess:
            break
        time.sleep(0.5)
    out = process.communicate()[0].split()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    before, peak = float(out[-2]), float(out[-1])
    peaks = (before, peak, max(whole for whole, _ in seen), max(own for _, own in seen))
    return [f"{mib:.0f}" for mib in peaks]


def here(section: str, folder: Path, given: list[str]) -> None:
    """The measured process."""
    import torch

    torch.set_num_threads(1)
    import benchmarks.training  # noqa: F401 - the libraries, before anything is made

    before = highest()
    work = of_number(folder, int(given[0]), int(given[1])) if section == "number" else of_side(folder, given[0])
    work()
    print(before, highest(), flush=True)


def main() -> None:
    """Prints the tables of the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "sections",
        nargs="*",
        choices=[*SECTIONS, []],
        metavar="SECTION",
        help=f"of {', '.join(SECTIONS)}; both if none",
    )
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        here(given.sections[0], Path(given.measure[0]), given.measure[1:])
        return
    titles = "MiB with the libraries only | at the peak | with workers | with workers, without file pages"
    sections = given.sections or SECTIONS
    if "number" in sections:
        print(f"| px | patches | {titles} |\n{'|---' * 6}|")
        for size in SIZES:
            for count in NUMBERS:
                with tempfile.TemporaryDirectory() as folder:
                    columns = watched("number", Path(folder), count, size)
                print(f"| {size} | {count} | {' | '.join(columns)} |", flush=True)
        print()
    if "sides" in sections:
        from benchmarks.training import SIDES

        print(f"| loop | {titles} |\n{'|---' * 5}|")
        for name in SIDES:
            with tempfile.TemporaryDirectory() as folder:
                columns = watched("sides", Path(folder), name)
            print(f"| {name} | {' | '.join(columns)} |", flush=True)


if __name__ == "__main__":
    main()
