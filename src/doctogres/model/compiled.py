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

    def __init__(self, network: nn.Module, *examples: torch.Tensor):
        """Compiles.

        Args:
            network: on the CPU, in evaluation mode: gives a tuple of tensors.
            examples: its inputs; of the first the first dimension may differ later, all others are fixed.

        Raises:
            Exception: of many types, where OpenVINO's converter does not know what the network does.
        """
        openvino = _openvino()
        shapes = [list(example.shape) for example in examples]
        shapes[0][0] = -1
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of tracing: that it is deprecated, and that sizes are fixed here
            model = openvino.convert_model(network, example_input=examples, input=shapes)
        # On some processors the default is bfloat16, which keeps three digits.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        self._request = openvino.compile_model(model, "CPU", settings).create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The network's outputs for tensors on the CPU."""
        with self._lock:
            arrays = [one.contiguous().numpy() for one in inputs]
            outputs = self._request.infer(arrays, share_inputs=True, share_outputs=True).values()
            return tuple(torch.from_numpy(output.copy()) for output in outputs)


def _openvino() -> Any:
    """OpenVINO, silenced: its import would tell its maker's statistics about us and our networks."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # what Python takes for "not installed"
    import openvino

    return openvino
