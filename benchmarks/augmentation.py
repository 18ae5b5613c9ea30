"""`python -m benchmarks.augmentation`: what the augmentation of a batch costs, beside a network's forward and backward pass.

One thread and CPU time, because that is what a shared machine disturbs least; the variants run in turn in every repeat
and a ratio is taken within its repeat.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import timm
import torch
import torch.nn.functional as F
from torch import nn

from doctogres.training.augmentation import DEFAULT, STAINS, augment_pixels

NETWORKS: Final = ("test_resnet", "mobilenetv2_100", "convnext_tiny")
SIZES: Final = (64, 96, 224)
PATCHES: Final = 32


def step_by_step(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The same change as `augment_pixels`, for values in 0..1, with the same draws, a step after the other as the papers write them."""
    count = len(batch)

    def even(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator) * 2 - 1

    choice = torch.randint(8, (count,), generator=generator)
    turned = [torch.rot90(patch, int(variant) % 4, (1, 2)) for patch, variant in zip(batch, choice, strict=True)]
    turned = [patch.flip(2) if variant >= 4 else patch for patch, variant in zip(turned, choice, strict=True)]
    draws = even(count, 4)
    angle, zoom = torch.deg2rad(draws[:, 0] * DEFAULT.degrees), 1 + draws[:, 1] * DEFAULT.scale
    cosine, sine, shift = angle.cos() * zoom, angle.sin() * zoom, draws[:, 2:] * 2 * DEFAULT.shift
    rows = [torch.stack([cosine, -sine, shift[:, 0]], 1), torch.stack([sine, cosine, shift[:, 1]], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(batch.shape), align_corners=False)
    moved = F.grid_sample(torch.stack(turned), grid, padding_mode="reflection", align_corners=False)

    density = -torch.log10((moved * 255 + 1) / 256)
    amounts = torch.einsum("bcij,kc->bkij", density, torch.linalg.inv(STAINS))
    scales, shifts = even(2, count, 3, 1, 1) * DEFAULT.stain
    change = torch.einsum("bkij,ck->bcij", amounts * scales + shifts, STAINS)
    stained = moved * 10**-change

    contrast, brightness = even(2, count, 1, 1, 1) * DEFAULT.colour
    mean = stained.mean((1, 2, 3), keepdim=True)
    recoloured: torch.Tensor = (stained - mean) * (1 + contrast) + mean * (1 + brightness)
    return recoloured.clamp(0, 1)


def cpu_ms(function: Callable[[], object]) -> float:
    """Milliseconds of this thread's CPU time in one call."""
    started = time.thread_time()
    function()
    return (time.thread_time() - started) * 1000


def measured(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of every function in every repeat, after one call to warm up."""
    times: dict[str, list[float]] = {name: [cpu_ms(function)] for name, function in functions.items()}
    for _ in range(repeats):
        for name, function in functions.items():
            times[name].append(cpu_ms(function))
    return {name: values[1:] for name, values in times.items()}


def forward_backward(network: nn.Module, batch: torch.Tensor) -> Callable[[], None]:
    """One pass over the batch, without a step of an optimizer."""
    targets = torch.arange(len(batch)) % 4

    def once() -> None:
        F.cross_entropy(network(batch), targets).backward()  # type: ignore[no-untyped-call]
        network.zero_grad()

    return once


def text(values: list[float], digits: int = 2) -> str:
    """Median, smallest and largest."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    noise = torch.Generator().manual_seed(0)
    batches = {size: torch.randint(256, (PATCHES, size, size, 3), dtype=torch.uint8) for size in options.sizes}

    print("| px | step by step, ms | `augment_pixels`, ms | times less |\n|---|---|---|---|")
    for size, pixels in batches.items():
        unit = pixels.permute(0, 3, 1, 2).contiguous() / 255
        difference = step_by_step(unit, torch.Generator().manual_seed(1)) - augment_pixels(
            pixels, torch.Generator().manual_seed(1)
        )
        assert difference.abs().max() < 1e-3, "the two ways differ"
        functions: dict[str, Callable[[], object]] = {
            "steps": partial(step_by_step, unit, noise),
            "pixels": partial(augment_pixels, pixels, noise),
        }
        times = measured(functions, options.repeats)
        gain = [before / after for before, after in zip(times["steps"], times["pixels"], strict=True)]
        print(f"| {size} | {text(times['steps'])} | {text(times['pixels'])} | {text(gain, 1)} |")

    print("\n| network | px | forward and backward, ms | `augment_pixels`, ms | share, % |\n|---|---|---|---|---|")
    for name in options.networks:
        network = timm.create_model(name, num_classes=4).train().to(memory_format=torch.channels_last)
        for size, pixels in batches.items():
            batch = (pixels.permute(0, 3, 1, 2) / 255).contiguous(memory_format=torch.channels_last)
            times = measured(
                {
                    "network": forward_backward(network, batch),
                    "pixels": partial(augment_pixels, pixels, noise),
                },
                max(3, options.repeats // 5),
            )
            share = [100 * mine / its for mine, its in zip(times["pixels"], times["network"], strict=True)]
            print(
                f"| {name} | {size} | {text(times['network'], 0)} | {text(times['pixels'])} | {text(share)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
