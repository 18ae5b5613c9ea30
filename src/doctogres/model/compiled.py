"""A network's forward pass on the CPU with OpenVINO: the same outputs in less time (see benchmarks/README.md)."""

import sys
import threading
import warnings
from typing import Any

import torch
from torch import nn


class CompiledNetwork:
    """A network compiled with OpenVINO; runs on all cores, in float32, for any number of patches.

    It may be called from several threads; forward passes run one at a time, so that memory does not grow with callers.
    Later changes to the network's weights have no effect.
    """

    def __init__(self, network: nn.Module, *examples: torch.Tensor):
        """Compiles the network.

        Args:
            network: on the CPU, in evaluation mode; returns a tuple of tensors.
            examples: example inputs; only the first dimension of the first input may vary later.

        Raises:
            Exception: of many types, if OpenVINO cannot convert the network.
        """
        openvino = _openvino()
        shapes = [list(example.shape) for example in examples]
        shapes[0][0] = -1
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # tracing warns that it is deprecated and that sizes become constants
            model = openvino.convert_model(network, example_input=examples, input=shapes)
        # On some processors the default is bfloat16, which has only three significant digits.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        self._request = openvino.compile_model(model, "CPU", settings).create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The network's outputs for tensors on the CPU."""
        with self._lock:
            arrays = [tensor.contiguous().numpy() for tensor in inputs]
            outputs = self._request.infer(arrays, share_inputs=True, share_outputs=True).values()
            return tuple(torch.from_numpy(output.copy()) for output in outputs)


def _openvino() -> Any:
    """Imports OpenVINO with its telemetry disabled."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # Python treats it as not installed
    import openvino

    return openvino
