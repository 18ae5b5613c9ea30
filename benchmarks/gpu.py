"""`python -m benchmarks.gpu [--device cuda] [--backbone convnext_tiny]`: what an accelerator gives us of what it can do.

Training, features and answers in patches a second, against the same network in a bare loop on random patches that lie on the
device, and against the device's own limit: a product of large matrices, measured in the same run. Then the same slides are
answered by the CPU, as a server without an accelerator does it, and by the device: the largest difference of a probability.

All variants run in turn in every repeat, and a ratio is taken within its repeat.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.augmentation import text
from benchmarks.serving import drawn_slides, made_classifier
from benchmarks.training import CLASSES, SEED, made_samples
from doctogres.model.classifier import SlideClassifier
from doctogres.model.ensemble import Ensemble, outputs_of
from doctogres.model.network import create_network, normalisation
from doctogres.settings import TrainSettings
from doctogres.slides.images import read_rgb
from doctogres.slides.masks import read_mask
from doctogres.training.features import Copy, FrozenFeatures
from doctogres.training.optimizer import make_optimizer
from doctogres.training.trainer import Trainer

TOLERANCE: Final = 2e-3  # of a probability between CPU and device: float32 on both, in another order
MATRIX: Final = {"cuda": 8192, "cpu": 1024}  # side
SLIDES: Final = 12
Work = Callable[[], object]


@dataclass(frozen=True)
class Bench:
    """What is measured, and on what."""

    backbone: str
    size: int
    batch: int
    steps: int
    device: torch.device

    @property
    def patches(self) -> int:
        """In one round."""
        return self.batch * self.steps

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16, as our training has it on a device that knows it."""
        bf16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext()

    def network(self) -> nn.Module:
        """Random weights, channels last."""
        torch.manual_seed(SEED)
        made = create_network(self.backbone, classes=CLASSES, size=self.size)
        return made.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def images(self) -> torch.Tensor:
        """A batch of noise, on the device."""
        noise = torch.randn(self.batch, 3, self.size, self.size, device=self.device)
        return noise.contiguous(memory_format=torch.channels_last)


def seconds(work: Work, device: torch.device) -> float:
    """How long it takes until the device is done."""
    _wait(device)
    start = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_flops(bench: Bench) -> float:
    """Floating-point operations a second in a product of large matrices: the most that a network can get here."""
    side = MATRIX[bench.device.type]
    with bench.autocast():
        kind = torch.bfloat16 if torch.is_autocast_enabled(bench.device.type) else torch.float32
        one = torch.randn(side, side, device=bench.device, dtype=kind)
        times = [seconds(lambda: one @ one, bench.device) for _ in range(10)]
    return 2 * side**3 / min(times)


def forward_flops(bench: Bench) -> float:
    """Operations of one patch's forward pass; training takes about three times as many."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        bench.network().eval()(bench.images()[:1])
    return float(counter.get_total_flops())


def bare_training(bench: Bench, *, compiled: bool) -> Work:
    """A loop of steps on one batch, with nothing else."""
    network = bench.network().train()
    program: Any = torch.compile(network) if compiled else network
    settings = TrainSettings(backbone=bench.backbone, weights="none")
    optimizer = make_optimizer(network, [[name for name, _ in network.named_parameters()]], settings)
    images, targets = bench.images(), torch.randint(0, CLASSES, (bench.batch,), device=bench.device)

    def run() -> None:
        for _ in range(bench.steps):
            with bench.autocast():
                loss = F.cross_entropy(program(images).float(), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


def our_training(bench: Bench, folder: Path) -> Work:
    """An epoch of ours: patches from the memory map, augmentation on the device, class weights, the schedule."""
    samples = made_samples(bench.patches, bench.size, folder)
    settings = TrainSettings.model_validate({
        "backbone": bench.backbone, "weights": "none", "batch_size": bench.batch, "unfreeze_every": 0, "feature_views": 0,
        "device": "auto" if bench.device.type == "cuda" else "cpu",
    })  # fmt: skip
    rows = np.arange(len(samples.pixels))
    trainer = Trainer(samples, rows, rows[:1], CLASSES, settings, SEED, None, lambda label, unit: nullcontext(_silent))
    return lambda: trainer.train_epoch(0, _silent)


def _silent(done: int, total: int) -> None:
    pass


def bare_forward(bench: Bench, *, compiled: bool, autocast: bool) -> Work:
    """Forward passes of one batch, in bfloat16 or in float32."""
    network = bench.network().eval()
    program: Any = torch.compile(network) if compiled else network
    images = bench.images()

    @torch.inference_mode()
    def run() -> None:
        for _ in range(bench.steps):
            with bench.autocast() if autocast else nullcontext():
                program(images)

    return run


def our_forward(bench: Bench, folder: Path) -> Work:
    """The answers of a model for patches, as `evaluate` and a server get them."""
    samples = made_samples(bench.patches, bench.size, folder)
    network = bench.network().eval()
    mean, std = normalisation(network)
    return lambda: outputs_of(Ensemble([network]), samples.pixels, mean=mean, std=std)


def our_features(bench: Bench, folder: Path) -> Work:
    """The features of a frozen backbone, as a probe gets them, with the cache file that is written."""
    samples = made_samples(bench.patches, bench.size, folder)
    network = bench.network().eval()
    rows, counted = np.arange(len(samples.pixels)), iter(range(1, 1_000_000))

    frozen = FrozenFeatures(
        network, samples, rows, folder=folder, autocast=bench.autocast, progress=lambda *_: nullcontext(_silent)
    )
    return lambda: frozen.of(Copy(augmented=next(counted)))  # another copy each time: a known one is only read


def table(bench: Bench, folder: Path, repeats: int, *, compiled: bool) -> list[list[str]]:
    """A row per variant: patches a second, the ratio to the bare loop of its kind, the share of the device's limit."""
    programs = (False, True) if compiled else (False,)
    kinds: dict[str, dict[str, Work]] = {
        "training": {
            **{_name(program): bare_training(bench, compiled=program) for program in programs},
            "ours": our_training(bench, folder),
        },
        "forward": {
            **{
                f"{_name(program)}, {'bf16' if cast else 'float32'}": bare_forward(
                    bench, compiled=program, autocast=cast
                )
                for program in programs
                for cast in ((True, False) if bench.device.type == "cuda" else (False,))
            },
            "ours": our_forward(bench, folder),
        },
        "features": {
            "bare": bare_forward(bench, compiled=False, autocast=True),
            "ours, one augmented copy": our_features(bench, folder),
        },
    }
    limit, each = matrix_flops(bench), forward_flops(bench)
    rows = []
    for kind, works in kinds.items():
        spent: dict[str, list[float]] = {name: [] for name in works}
        for repeat in range(repeats + 1):  # the first round warms up
            for name, work in works.items():
                taken = seconds(work, bench.device)
                if repeat:
                    spent[name].append(taken)
        bare = spent[next(iter(works))]
        for name, times in spent.items():
            rate = [bench.patches / value for value in times]
            operations = each * (3 if kind == "training" else 1)
            share = [operations * value / limit for value in rate]
            ratio = [own / mine for own, mine in zip(bare, times, strict=True)]
            rows.append([kind, name, text(rate, 1), text(ratio), text(share)])
    return rows


def _name(compiled: bool) -> str:
    return "bare, torch.compile" if compiled else "bare"


def largest_difference(bench: Bench, folder: Path) -> float:
    """Of the probabilities of the same slides, answered by the CPU and by the device."""
    classifier = made_classifier(bench.backbone, bench.size, 2)
    classifier.save(folder / "model")
    answers = []
    for device in ("cpu", str(bench.device)):
        loaded = SlideClassifier.load(folder / "model", device=device)
        answers.append(
            [
                loaded.classify(read_rgb(row["image"]), read_mask(row["mask"])).probabilities
                for row in drawn_slides(SLIDES)
            ]
        )
    return float(np.abs(np.array(answers[0]) - np.array(answers[1])).max())


def main() -> None:
    """Prints the tables; exit status 1 if CPU and device disagree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--backbone", default="convnext_tiny")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which needs a C++ compiler")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(
            "no CUDA device is available; --device cpu tries the program, its figures say nothing of a GPU"
        )
    bench = Bench(options.backbone, options.size, options.batch, options.steps, torch.device(options.device))
    name = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, PyTorch {torch.__version__}, {bench.backbone} at {bench.size} px, batches of {bench.batch}\n")
    with tempfile.TemporaryDirectory() as folder:
        print("| | | patches/s | times as fast as bare | share of the limit |\n" + "|---" * 5 + "|")
        for row in table(bench, Path(folder), options.repeats, compiled=not options.no_compile):
            print(f"| {' | '.join(row)} |", flush=True)
        print(
            f"\nlimit: {matrix_flops(bench) / 1e12:.1f} TFLOP/s in products of matrices; a patch's forward pass takes "
            f"{forward_flops(bench) / 1e9:.2f} GFLOP"
        )
        worst = largest_difference(bench, Path(folder))
    agree = worst <= TOLERANCE
    print(
        f"CPU and {options.device}: probabilities of {SLIDES} slides differ by at most {worst:.1e} (tolerance {TOLERANCE:.0e})"
    )
    raise SystemExit(0 if agree else 1)


if __name__ == "__main__":
    main()
