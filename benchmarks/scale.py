"""`python -m benchmarks.scale FOLDER 100 1000`: what a slide costs as a cohort grows: seconds, peak memory, bytes written.

Cohorts of so many slides are made in FOLDER: squares cut at random from drawn slides, turned, scaled and tinted, each with a
lesion of its own. Every stage is a command of its own, as a user types it, with a store and a workspace of its own; its peak of
memory is that of all its processes together. The model is a probe on a random network, fitted to the first cohort: what it
answers is of no use, what it costs is.
"""

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
import psutil

from doctogres.slides.images import encode_png, read_rgb
from doctogres.synthetic import make_cohort

SIDE: Final = 256  # pixels
BASES: Final = 48
CLASSES: Final = 3
LOCAL: Final = "local"
STAGES: Final = ("clean", "patch", "predict")
ROOT: Final = Path(__file__).parents[1]
MODEL_FOLDER: Final = "model"
MODEL: Final = ("--recipe", "probe", "--params", "none", "--ensemble", "false")
TRIES: Final = 30  # squares until one has tissue
GLASS: Final = 190  # mean brightness of a square that is mostly glass
POLL: Final = 0.05  # seconds between two looks at the memory
NEW: Final = 0.25  # seconds after the start of a process


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    seconds: float
    peak: int  # bytes
    written: int  # bytes

    def row(self, slides: int) -> list[str]:
        """Its cells of the table: per slide where that says more."""
        return [
            f"{self.seconds:.1f}", f"{1000 * self.seconds / slides:.1f}", f"{self.peak / 2**20:.0f}",
            f"{self.written / 1000 / slides:.1f}",
        ]  # fmt: skip


def make_slides(folder: Path, count: int, bases: Sequence[npt.NDArray[np.uint8]]) -> None:
    """A cohort of `count` training slides in the challenge's layout, and a tenth as many test slides."""
    for part, number in (("train_data", count), ("test_data", max(1, count // 10))):
        (folder / part).mkdir(parents=True)
        for index in range(number):
            random = np.random.default_rng([count, len(part), index])
            picture, mask = _square(random, bases[index % len(bases)])
            (folder / part / f"img_{index:05d}.png").write_bytes(encode_png(picture))
            (folder / part / f"mask_{index:05d}.png").write_bytes(encode_png(mask))
    rows = [(f"img_{index:05d}.png", f"class {index % CLASSES}") for index in range(count)]
    pd.DataFrame(rows, columns=["sample_index", "label"]).to_csv(folder / "train_labels.csv", index=False)


def _square(
    random: np.random.Generator, base: npt.NDArray[np.uint8]
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    side = int(SIDE * random.uniform(0.7, 1.3))
    for _ in range(TRIES):
        top, left = (int(random.integers(0, size - side)) for size in base.shape[:2])
        square = base[top : top + side, left : left + side]
        if square.mean() < GLASS:
            break
    cut = cv2.resize(np.rot90(square, int(random.integers(4))), (SIDE, SIDE))
    tinted = np.clip(cut * random.uniform(0.9, 1.1, 3) + random.normal(0, 3, cut.shape), 0, 255).astype(np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(random.integers(1, 4)):
        centre, axes = random.integers(60, SIDE - 60, 2), random.integers(20, 50, 2)
        cv2.ellipse(mask, centre.tolist(), axes.tolist(), float(random.uniform(0, 180)), 0, 360, 255, -1)
    return tinted, mask


def drawn_bases() -> list[npt.NDArray[np.uint8]]:
    """Drawn slides that the squares are cut from."""
    with tempfile.TemporaryDirectory() as folder:
        make_cohort(Path(folder, "drawn"), slides=BASES, seed=1)
        return [read_rgb(path) for path in sorted(Path(folder).glob("drawn/train_data/img_*.png"))]


def size_of(*folders: Path) -> int:
    """Bytes of all files in these folders."""
    return sum(
        path.stat().st_size for folder in folders if folder.exists() for path in folder.rglob("*") if path.is_file()
    )


def measured(command: Sequence[str], home: Path, **variables: str) -> Cost:
    """Runs an entry point with the store, artifacts and workspace in `home`.

    Raises:
        SystemExit: it failed; its output is shown.
    """
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db", "DOCTOGRES_WORKSPACE": str(home / "workspace"),
        "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYSPARK_PYTHON": sys.executable,
    } | variables  # fmt: skip
    before = size_of(home)
    peak, done = 0, threading.Event()
    start = time.perf_counter()
    with (home / "log.txt").open("ab") as log:
        process = psutil.Popen([sys.executable, "-m", *command], cwd=home, env=environment, stdout=log, stderr=log)

        def watch() -> None:
            nonlocal peak
            while not done.wait(POLL):
                peak = max(peak, _memory(process))

        watcher = threading.Thread(target=watch)
        watcher.start()
        status = process.wait()
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{(home / 'log.txt').read_text()[-3000:]}")
    return Cost(seconds, peak, size_of(home) - before)


def _memory(process: psutil.Popen) -> int:
    """Memory of a process and all below it; what they share counts once for each.

    What was started just now does not count: until it runs a program of its own, it shares all memory of its parent.
    """
    total = 0
    try:
        total += process.memory_info().rss
        for one in process.children(recursive=True):
            total += one.memory_info().rss if time.time() - one.create_time() > NEW else 0
    except psutil.Error:  # it has just ended
        pass
    return total


def stage_costs(
    home: Path, data: Path, model: str, engines: Sequence[str], stages: Sequence[str]
) -> dict[tuple[str, str], Cost]:
    """The cost of the stages with every engine; an engine is local, a number of shares, or spark and its cores."""
    found: dict[tuple[str, str], Cost] = {}
    common = ("--preset", "demo", "--patch_size", "64")
    for engine in engines:
        for stage, given in (
            ("clean", ("--data", str(data), "--preset", "demo")),
            ("patch", ("--cohort", "latest", *common)),
            ("predict", ("--data", str(data), "--model", model, "--preset", "demo", "--overlays", "0", "--output", "")),
        ):
            if stage not in stages:
                continue
            words = (f"entrypoints.{stage}", *given, "--rerun", "true")
            if engine == LOCAL:
                found[stage, engine] = measured(words, home)
            elif engine.isdigit():
                shares = [
                    measured((*words, "--shard", f"{number}/{engine}"), home) for number in range(1, int(engine) + 1)
                ]
                joined = measured((*words, "--shard", "join"), home)
                found[stage, f"{engine} shares, slowest"] = max(shares, key=lambda cost: cost.seconds)
                found[stage, f"{engine} shares, join"] = joined
            else:
                cores = engine.removeprefix("spark")
                found[stage, engine] = measured(
                    (*words, "--engine", "spark", "--spark_master", f"local[{cores}]"), home
                )
    return found


def fitted(home: Path, data: Path) -> str:
    """A model, by its address."""
    for stage, given in (("clean", ("--data", str(data))), ("patch", ()), ("train", MODEL)):
        measured((f"entrypoints.{stage}", "--preset", "demo", *given), home)
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    experiment = mlflow.get_experiment_by_name("doctogres")
    assert experiment is not None
    model, *_ = mlflow.search_logged_models([experiment.experiment_id], output_format="list")
    return str(shutil.copytree(mlflow.artifacts.download_artifacts(model.model_uri), home / MODEL_FOLDER))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where cohorts and results go; it needs 0.3 MB for each slide")
    parser.add_argument("slides", type=int, nargs="+")
    parser.add_argument("--engines", nargs="*", default=[LOCAL], help="local, a number of shares, spark1, spark2, ...")
    parser.add_argument("--stages", nargs="*", default=STAGES, choices=STAGES, help="clean comes before patch")
    options = parser.parse_args()
    folder = options.folder.resolve()
    bases = drawn_bases()
    model = ""
    print("| stage | engine | slides | seconds | ms a slide | peak, MiB | kB written a slide |")
    print("|" + "---|" * 7)
    for count in sorted(options.slides):
        home, data = folder / f"results-{count}", folder / f"slides-{count}"
        if not data.is_dir():
            partial = folder / f"partial-{count}"
            shutil.rmtree(partial, ignore_errors=True)
            make_slides(partial, count, bases)
            partial.rename(data)
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        if not model and "predict" in options.stages:
            (folder / "model").mkdir(exist_ok=True)
            model = (
                fitted(folder / "model", data)
                if not (folder / "model" / "model").is_dir()
                else str(folder / "model" / "model")
            )
        for (stage, engine), cost in stage_costs(home, data, model, options.engines, options.stages).items():
            print(f"| {' | '.join([stage, engine, str(count), *cost.row(count)])} |", flush=True)
        audit = max(path.stat().st_size for path in home.rglob("audit.html"))
        store = (home / "mlflow.db").stat().st_size
        print(f"\naudit.html of {count} slides: {audit / 2**20:.1f} MiB; store: {store / 2**20:.1f} MiB\n", flush=True)


if __name__ == "__main__":
    main()
