"""`python -m benchmarks.runtimes`: a network's forward pass on the CPU in PyTorch, ONNX Runtime and OpenVINO.

Needs `uv pip install onnx onnxscript onnxruntime` and, for torch.compile, a C++ compiler. Every runtime takes batches of
any number of patches, has all cores and computes in float32; the patches are standardised noise. Each has a process of
its own, so that the others' waiting threads are not in its way; these are asked in turn.
"""

import argparse
import multiprocessing
import tempfile
import time
import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from benchmarks.training_memory import highest
from doctogres.engine import default_workers
from doctogres.model.compiled import CompiledNetwork
from doctogres.model.network import create_network

Forward = Callable[[torch.Tensor], np.ndarray]
NETWORKS: Final = (("test_resnet", 64), ("mobilenetv2_100", 96), ("convnext_tiny", 224))
CLASSES: Final = 6
QUIET: Final = 0.3  # seconds in which the threads of the runtime before stop waiting for more
EXAMPLE: Final = 4  # patches of the example that a runtime traces


def eager(network: nn.Module, example: torch.Tensor) -> Forward:
    """PyTorch's default layout."""
    return lambda inputs: network(inputs).numpy()


def channels_last(network: nn.Module, example: torch.Tensor) -> Forward:
    """The layout of our training."""
    network = network.to(memory_format=torch.channels_last)
    return lambda inputs: network(inputs.contiguous(memory_format=torch.channels_last)).numpy()


def compiled(network: nn.Module, example: torch.Tensor) -> Forward:
    """torch.compile on channels last, its code made for any number of patches."""
    network = network.to(memory_format=torch.channels_last)
    program: Any = torch.compile(network, dynamic=True)
    return lambda inputs: program(inputs.contiguous(memory_format=torch.channels_last)).numpy()


def onnx_runtime(network: nn.Module, example: torch.Tensor) -> Forward:
    """ONNX Runtime on PyTorch's own export."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        any_number = {0: torch.export.Dim("patches")}
        torch.onnx.export(network, (example,), path, dynamic_shapes=(any_number,), verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = default_workers()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda inputs: session.run(None, {name: inputs.numpy()})[0]


def open_vino(network: nn.Module, example: torch.Tensor) -> Forward:
    """What the served model does."""
    program = CompiledNetwork(_AsTuple(network), example)
    return lambda inputs: program(inputs)[0].numpy()


class _AsTuple(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.network(patches),)


RUNTIMES: Final = {
    "PyTorch, default layout": eager,
    "PyTorch, channels last": channels_last,
    "torch.compile, channels last": compiled,
    "ONNX Runtime": onnx_runtime,
    "OpenVINO": open_vino,
}
TIMES_THAT_OF: Final = "PyTorch, channels last"


def serve(connection: Any, name: str, backbone: str, size: int) -> None:
    """Answers a number of patches with the seconds that they took, after the seconds until the runtime was ready."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(default_workers())
    with torch.inference_mode():
        torch.manual_seed(0)
        network = create_network(backbone, classes=CLASSES, size=size).eval()
        example = torch.randn(EXAMPLE, 3, size, size)
        start = time.perf_counter()
        forward = RUNTIMES[name](network, example)
        connection.send((time.perf_counter() - start, forward(example)))
        while count := connection.recv():
            patches = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(count))
            forward(patches)
            start = time.perf_counter()
            forward(patches)
            connection.send(time.perf_counter() - start)


def in_batches(connection: Any, backbone: str, size: int, at_once: int) -> None:
    """Sends the seconds of 64 patches in OpenVINO, so many at once, and the process's peak memory in MiB."""
    forward = open_vino(
        create_network(backbone, classes=CLASSES, size=size).eval(), torch.randn(EXAMPLE, 3, size, size)
    )
    patches = torch.randn(64, 3, size, size)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        for first in range(0, len(patches), at_once):
            forward(patches[first : first + at_once])
        seconds.append(time.perf_counter() - start)
    connection.send((np.median(seconds[1:]), highest()))


def batches() -> None:
    """Prints a table."""
    context = multiprocessing.get_context("spawn")
    print("| network | px | patches at once | 64 patches, ms | MiB at the peak |\n|---|---|---|---|---|")
    for (backbone, size), at_once in product(NETWORKS, (8, 16, 32, 64)):
        side, other = context.Pipe()
        context.Process(target=in_batches, args=(other, backbone, size, at_once), daemon=True).start()
        other.close()
        seconds, memory = side.recv()
        print(f"| {backbone} | {size} | {at_once} | {1000 * seconds:.0f} | {memory:.0f} |", flush=True)


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", action="store_true", help="OpenVINO alone: how many patches at once")
    parser.add_argument("--patches", type=int, nargs="*", default=[1, 12, 40])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    if options.batches:
        batches()
        return
    columns = ["network", "px", "runtime", "ready, s", "furthest output", *map(str, options.patches)]
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    context = multiprocessing.get_context("spawn")
    for backbone, size in NETWORKS:
        sides, ready, answers = {}, {}, {}
        for name in RUNTIMES:
            sides[name], other = context.Pipe()
            context.Process(target=serve, args=(other, name, backbone, size), daemon=True).start()
            other.close()  # so that a process that fails ends the wait
            ready[name], answers[name] = sides[name].recv()
        times = {name: np.zeros((options.repeats, len(options.patches))) for name in RUNTIMES}
        for repeat, (place, count), name in product(range(options.repeats), enumerate(options.patches), RUNTIMES):
            time.sleep(QUIET)
            sides[name].send(count)
            times[name][repeat, place] = sides[name].recv()
        first = answers[next(iter(RUNTIMES))]
        for name in RUNTIMES:
            sides[name].send(0)
            far = np.abs(answers[name] - first).max() / np.abs(first).max()
            ratios = np.median(times[name] / times[TIMES_THAT_OF], axis=0)
            cells = [
                f"{1000 * wall:.1f} ms ({ratio:.2f})"
                for wall, ratio in zip(np.median(times[name], axis=0), ratios, strict=True)
            ]
            print(f"| {backbone} | {size} | {name} | {ready[name]:.1f} | {far:.0e} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
