"""A network's forward pass on the CPU by OpenVINO: the same outputs in less time (see benchmarks/README.md)."""

import sys
import threading
import warnings
from typing import Any

import torch
from torch import nn


class CompiledNetwork:
    """A network that OpenVINO runs on all cores, in float32, for any number of patches.

    Several threads may call it; one forward pass runs at a time, so that many callers take no more memory than one.
    Later changes of the network's weights are not seen.
    """

    def __init__(self, network: nn.Module, *, size: int):
        """Compiles.

        Args:
            network: on the CPU, in evaluation mode: (patches, 3, size, size) -> a tuple of tensors.
            size: side of the patches in pixels.

        Raises:
            Exception: of many types, where OpenVINO's converter does not know what the network does.
        """
        openvino = _openvino()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter(
                "ignore"
            )  # of tracing: FutureWarning, and TracerWarning for sizes that are fixed here
            model = openvino.convert_model(
                network, example_input=torch.rand(2, 3, size, size), input=[-1, 3, size, size]
            )
        # Some processors would compute in bfloat16 otherwise, and answer differently in the third digit.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        self._request = openvino.compile_model(model, "CPU", settings).create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, patches: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The network's outputs for (patches, 3, size, size) on the CPU."""
        with self._lock:
            outputs = self._request.infer(patches.contiguous().numpy(), share_inputs=True).values()
            return tuple(torch.from_numpy(output.copy()) for output in outputs)


def _openvino() -> Any:
    """OpenVINO, silenced: its import would tell its maker's statistics about us and our networks."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # what Python takes for "not installed"
    import openvino

    return openvino
