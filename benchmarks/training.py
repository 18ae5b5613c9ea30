"""`python -m benchmarks.training [SECTION ...]`: the training loop, the study and the tracking, each against its own bare form.

One thread by default, because two OpenMP threads that wait for each other on a shared machine measure the others' work
(`--threads` gives more). The variants run in turn in every repeat, and a ratio is taken within its repeat.
"""

import argparse
import copy
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import mlflow
import numpy as np
import numpy.typing as npt
import optuna
import psutil
import torch
import torch.nn.functional as F
from lion_pytorch import Lion
from PIL import Image
from timm.data import ImageDataset, create_loader, resolve_data_config
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.augmentation import text
from doctogres.engine import default_workers
from doctogres.model.network import create_network
from doctogres.presets import load_preset
from doctogres.settings import TrainSettings, TuneSettings
from doctogres.training.loop import Epoch, train_network
from doctogres.training.samples import Samples
from doctogres.tuning.study import run_study

CLASSES: Final = 4
SEED: Final = 7
# Network, side in pixels, patches per batch, batches per epoch.
LOOPS: Final = (
    ("mobilenetv2_100", 96, 32, 6),
    ("mobilenetv2_100", 224, 8, 5),
    ("test_resnet", 64, 32, 12),
    ("convnext_tiny", 224, 4, 3),
)
DEMO_PATCHES: Final = 540  # about what the demo cohort leaves for training and its validation fold


@dataclass(frozen=True)
class Cost:
    """Seconds on the wall, and of the CPU in this process and its workers."""

    wall: float
    cpu: float


def _workers_seconds() -> float:
    times = [worker.cpu_times() for worker in psutil.Process().children(recursive=True)]
    return sum(used.user + used.system for used in times)


def measure(work: Callable[[], object]) -> Cost:
    workers, cpu, wall = _workers_seconds(), time.process_time(), time.perf_counter()
    work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Cost(wall, cpu + _workers_seconds() - workers)


def interleaved(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[Cost]]:
    """The costs of every work in every repeat, after one round that warms up."""
    costs: dict[str, list[Cost]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            cost = measure(work)
            if repeat:
                costs[name].append(cost)
    return costs


def times_as_fast(own: list[Cost], other: list[Cost]) -> tuple[str, str]:
    """How many times as fast the first is, on the wall and in CPU time."""
    pairs = list(zip(own, other, strict=True))
    return text([its.wall / mine.wall for mine, its in pairs]), text([its.cpu / mine.cpu for mine, its in pairs])


def per_second(patches: int, costs: list[Cost]) -> str:
    return text([patches / cost.wall for cost in costs], 1)


def made_samples(count: int, size: int, folder: Path) -> Samples:
    """Patches of noise, eight to a slide, memory-mapped as the pixel cache is."""
    rng = np.random.default_rng(SEED)
    path = folder / f"pixels-{count}-{size}.npy"
    np.save(path, rng.integers(0, 256, (count, size, size, 3), np.uint8))
    slides = np.arange(count) // 8
    return Samples(
        pixels=np.load(path, mmap_mode="r"),
        targets=(slides % CLASSES).astype(np.int64),
        slide_ids=np.array([f"img_{slide:05d}" for slide in slides]),
        areas=np.full(count, 400.0),
        pixels_key=path.stem,
    )


def recipe(backbone: str, **changes: Any) -> TrainSettings:
    values = {"backbone": backbone, "weights": "none", "epochs": 10_000, "unfreeze_every": 0, "device": "cpu"}
    return TrainSettings.model_validate(values | changes)


class OurEpochs:
    """Our training, an epoch per call: `train_network` in a thread that waits in `on_epoch` until the next call.

    An epoch takes in what belongs to it: the validation (of one patch here), its scores, and keeping the best weights.
    """

    def __init__(self, samples: Samples, settings: TrainSettings):
        rows = np.arange(len(samples.pixels))
        self.threads = torch.get_num_threads()
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._train, args=(samples, rows, settings), daemon=True)
        self.thread.start()
        self._wait()

    def __call__(self) -> None:
        self.go.release()
        self._wait()

    def _wait(self) -> None:
        self.done.acquire()
        if self.error:
            raise self.error

    def _train(self, samples: Samples, rows: npt.NDArray[np.int64], settings: TrainSettings) -> None:
        torch.set_num_threads(self.threads)
        try:
            train_network(
                samples, rows, rows[:1], classes=CLASSES, settings=settings, seed=SEED, on_epoch=self._on_epoch
            )
        except Exception as error:  # noqa: BLE001 - raised where the epoch is asked for
            self.error = error
        self.done.release()

    def _on_epoch(self, epoch: Epoch) -> None:
        del epoch
        self.done.release()
        self.go.acquire()


def bare_epoch(network: nn.Module, batch: torch.Tensor, steps: int) -> Callable[[], None]:
    """Forward, backward and Lion on one batch that is already there."""
    optimizer = Lion(network.train().parameters(), lr=1e-5)
    targets = torch.arange(len(batch)) % CLASSES

    def epoch() -> None:
        for _ in range(steps):
            F.cross_entropy(network(batch), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

    return epoch


def loop(repeats: int, folder: Path) -> None:
    """Our loop against the bare one, which is given both memory layouts."""
    titles = (
        "ours, patches/s | bare | bare, channels last | ours / bare | in CPU time | ours / channels last | in CPU time"
    )
    print(f"| network | px | batch | {titles} |\n{'|---' * 10}|")
    for backbone, size, batch_size, steps in LOOPS:
        samples = made_samples(batch_size * steps, size, folder)
        settings = recipe(backbone, batch_size=batch_size)
        network = create_network(backbone, classes=CLASSES, size=size, dropout=settings.dropout)
        batch = torch.rand(batch_size, 3, size, size)
        turned = copy.deepcopy(network).to(memory_format=torch.channels_last)
        works: dict[str, Callable[[], object]] = {
            "ours": OurEpochs(samples, settings),
            "bare": bare_epoch(network, batch, steps),
            "last": bare_epoch(turned, batch.contiguous(memory_format=torch.channels_last), steps),
        }
        costs = interleaved(works, repeats)
        cells = [per_second(len(samples.pixels), costs[name]) for name in works]
        cells += [*times_as_fast(costs["ours"], costs["bare"]), *times_as_fast(costs["ours"], costs["last"])]
        print(f"| {backbone} | {size} | {batch_size} | {' | '.join(cells)} |", flush=True)


def threads(repeats: int, folder: Path) -> None:
    """Our loop on one thread and on as many as there are cores."""
    cores, before = default_workers(), torch.get_num_threads()
    print(f"Load {os.getloadavg()[0]:.1f} before; OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY', '')}.\n")
    print(f"| network | px | 1 thread, patches/s | {cores} threads | times as fast | in CPU time |\n{'|---' * 6}|")
    for backbone, size, batch_size, steps in (LOOPS[0], LOOPS[2]):
        samples = made_samples(batch_size * steps, size, folder)
        works: dict[str, Callable[[], object]] = {}
        for count in (1, cores):
            torch.set_num_threads(count)
            works[str(count)] = OurEpochs(samples, recipe(backbone, batch_size=batch_size))
        costs = interleaved(works, repeats)
        cells = [per_second(len(samples.pixels), own) for own in costs.values()]
        cells += times_as_fast(costs[str(cores)], costs["1"])
        print(f"| {backbone} | {size} | {' | '.join(cells)} |", flush=True)
    torch.set_num_threads(before)


def study(repeats: int, folder: Path, *, trials: int = 20, epochs: int = 8, patches: int = 240) -> None:
    """One study whose every trial is trained with kept features and without; the study's own work counts on both sides."""
    del repeats  # the trials are the repeats
    samples = made_samples(patches, 96, folder)
    rows = np.arange(patches)
    part: dict[str, Any] = {
        "train": rows[: patches * 3 // 4],
        "validation": rows[patches * 3 // 4 :],
        "classes": CLASSES,
    }
    settings = recipe("mobilenetv2_100", epochs=epochs, unfreeze_every=epochs + 1, patience=epochs)
    names = ("learning_rate", "weight_decay", "dropout", "label_smoothing")
    space = {name: load_preset("challenge").tune.space[name] for name in names}
    tuned = TuneSettings(trials=trials, trial_epochs=epochs, space=space)
    costs: dict[str, list[Cost]] = {"kept": [], "anew": []}

    def objective(trial: optuna.Trial, values: dict[str, Any]) -> float:
        own = settings.model_copy(update=values)
        anew = own.model_copy(update={"feature_views": 0})
        scores: list[float] = []

        def train(chosen: TrainSettings) -> None:
            trained = train_network(samples, **part, settings=chosen, seed=SEED, features=folder / "features")
            scores.append(trained.best.slide_macro_f1)

        costs["kept"].append(measure(lambda: train(own)))
        costs["anew"].append(measure(lambda: train(anew)))
        return scores[0]

    whole = measure(
        lambda: run_study(
            objective,
            name="study",
            storage=f"sqlite:///{folder / 'optuna.db'}",
            settings=tuned,
            defaults=settings.model_dump(),
            seed=SEED,
        )
    )
    sums = {name: np.array([(cost.wall, cost.cpu) for cost in spent]) for name, spent in costs.items()}
    own = np.array([whole.wall, whole.cpu]) - sums["kept"].sum(0) - sums["anew"].sum(0)
    titles = ("first trial, s", "another trial, s", "study without trials, s", f"{trials} trials, s", "in CPU time")
    print(f"`mobilenetv2_100`, 96 px, {patches} patches, {epochs} epochs, {settings.feature_views} augmented views.\n")
    print(f"| features | {' | '.join(titles)} |\n|---|---|---|---|---|---|")
    for name, title in (("kept", "kept (`features=FOLDER`)"), ("anew", "computed anew (`feature_views=0`)")):
        wall, total = sums[name][:, 0], sums[name].sum(0) + own
        row = f"{wall[0]:.1f} | {text(wall[1:].tolist())} | {own[0]:.1f} | {total[0]:.1f} | {total[1]:.1f}"
        print(f"| {title} | {row} |")
    gain = (sums["anew"].sum(0) + own) / (sums["kept"].sum(0) + own)
    later = (sums["anew"][1:] / sums["kept"][1:])[:, 1].tolist()
    print(f"\nThe study is {gain[0]:.1f} times as fast, {gain[1]:.1f} in CPU time; ", end="")
    print(f"a trial after the first {text(later, 0)} in CPU time.", flush=True)


def tracking(repeats: int, folder: Path) -> None:
    """What logging an epoch's curves takes of the epoch, against a SQLite store."""
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
    mlflow.set_experiment("benchmark")
    demo = load_preset("demo").train.model_copy(update={"device": "cpu"})
    cases = {
        "the demo's recipe, `test_resnet`": (64, demo.model_copy(update={"epochs": 3 * repeats, "patience": 10_000})),
        "the same, `feature_views=0`": (
            64,
            demo.model_copy(update={"epochs": 3 * repeats, "patience": 10_000, "feature_views": 0}),
        ),
        "all open, `mobilenetv2_100`": (96, recipe("mobilenetv2_100", epochs=repeats, patience=10_000)),
    }
    print("| training | px | epoch without, s | `log_metrics`, ms | share of the epoch, % | in CPU time, % |")
    print("|" + "---|" * 6)
    for title, (size, settings) in cases.items():
        samples = made_samples(DEMO_PATCHES, size, folder)
        rows = np.arange(DEMO_PATCHES)
        logging: list[Cost] = []
        ends: list[Cost] = []

        def on_epoch(epoch: Epoch, logging: list[Cost] = logging, ends: list[Cost] = ends) -> None:
            logging.append(measure(lambda: mlflow.log_metrics(epoch.curves, step=epoch.epoch)))
            ends.append(Cost(time.perf_counter(), time.process_time()))

        with mlflow.start_run():
            cut = DEMO_PATCHES * 3 // 4
            train_network(
                samples,
                rows[:cut],
                rows[cut:],
                classes=CLASSES,
                settings=settings,
                seed=SEED,
                on_epoch=on_epoch,
                features=folder / "features",
            )
        pairs = list(zip(ends[:-1], ends[1:], logging[1:], strict=True))  # the first epoch opens the database
        without = [end.wall - start.wall - spent.wall for start, end, spent in pairs]
        share = [100 * spent.wall / (end.wall - start.wall) for start, end, spent in pairs]
        cpu = [100 * spent.cpu / (end.cpu - start.cpu) for start, end, spent in pairs]
        logged = text([1e3 * spent.wall for _, _, spent in pairs], 1)
        print(f"| {title} | {size} | {text(without)} | {logged} | {text(share)} | {text(cpu)} |", flush=True)


def timm_epoch(samples: Samples, folder: Path, *, batch_size: int = 32) -> Callable[[], None]:
    """Epochs as timm's `train.py` runs them (it is not in timm's package), with its defaults and two workers.

    PNG files in a folder per class, `create_loader` with the default augmentation (random resized crop, flip, colour
    jitter 0.4, prefetcher), label smoothing 0.1; timm's own Lion in place of its default SGD.
    """
    for row, (pixels, target) in enumerate(zip(samples.pixels, samples.targets, strict=True)):
        path = folder / "png" / str(target) / f"{row:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    size = samples.pixels.shape[1]
    network = create_network("mobilenetv2_100", classes=CLASSES, size=size).train()
    config = resolve_data_config({"input_size": (3, size, size)}, model=network)
    loader = create_loader(
        ImageDataset(str(folder / "png")),
        input_size=config["input_size"],
        batch_size=batch_size,
        is_training=True,
        color_jitter=0.4,
        hflip=0.5,
        interpolation="random",
        mean=config["mean"],
        std=config["std"],
        num_workers=2,
        device=torch.device("cpu"),
    )
    criterion = LabelSmoothingCrossEntropy(smoothing=0.1)
    optimizer = create_optimizer_v2(network, opt="lion", lr=1e-5, weight_decay=0.01)

    def epoch() -> None:
        for inputs, targets in loader:
            criterion(network(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()

    return epoch


def notebook_epoch(samples: Samples, folder: Path) -> Callable[[], None]:
    """Epochs as the challenge team's notebook ran them: all patches as float32 in memory, batches of eight, Lion."""
    del folder
    values = torch.from_numpy(np.asarray(samples.pixels, np.float32) / 255).permute(0, 3, 1, 2).contiguous()
    loader = DataLoader(TensorDataset(values, torch.from_numpy(samples.targets)), batch_size=8, shuffle=True)
    network = create_network("mobilenetv2_100", classes=CLASSES, size=samples.pixels.shape[1]).train()
    optimizer = Lion(network.parameters(), lr=1e-5)

    def epoch() -> None:
        for inputs, targets in loader:
            optimizer.zero_grad()
            F.cross_entropy(network(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    return epoch


def our_epochs(batch_size: int) -> Callable[[Samples, Path], Callable[[], object]]:
    settings = recipe("mobilenetv2_100", batch_size=batch_size)
    return lambda samples, folder: OurEpochs(samples, settings)


SIDES: Final[dict[str, Callable[[Samples, Path], Callable[[], object]]]] = {
    "ours, batch 32": our_epochs(32),
    "ours, batch 8": our_epochs(8),
    "timm's pipeline and step, batch 32, 2 workers": timm_epoch,
    "the notebook's loop, batch 8": notebook_epoch,
}


def sides(repeats: int, folder: Path) -> None:
    """Patches per second of our loop, timm's and the notebook's."""
    samples = made_samples(256, 96, folder)
    costs = interleaved({name: make(samples, folder) for name, make in SIDES.items()}, repeats)
    first = costs[next(iter(SIDES))]
    print("`mobilenetv2_100`, 96 px, 256 patches.\n")
    print("| loop | patches/s | ours, batch 32, is so many times as fast | in CPU time |\n|---|---|---|---|")
    for name, own in costs.items():
        print(f"| {name} | {per_second(256, own)} | {' | '.join(times_as_fast(first, own))} |", flush=True)


SECTIONS: Final[dict[str, Callable[[int, Path], None]]] = {
    "loop": loop,
    "threads": threads,
    "study": study,
    "tracking": tracking,
    "sides": sides,
}


def main() -> None:
    """Prints the tables of the sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all of them if none")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="of torch, in this process")
    given = parser.parse_args()
    if unknown := set(given.sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    torch.set_num_threads(given.threads)
    for name in given.sections or SECTIONS:
        print(f"{name}, {given.threads} thread(s), {given.repeats} repeats:\n")
        with tempfile.TemporaryDirectory() as folder:
            SECTIONS[name](given.repeats, Path(folder))
        print()


if __name__ == "__main__":
    main()
