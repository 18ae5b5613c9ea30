"""A network's forward pass on the CPU with OpenVINO: the same outputs in less time (see benchmarks/README.md)."""

import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import nn

RELATIVE_TOLERANCE: Final = 1e-4  # maximum difference of any output, as a share of its largest value


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


Outputs = Sequence[torch.Tensor]


def compile_checked(
    network: nn.Module, *examples: torch.Tensor, difference: Callable[[Outputs, Outputs], str]
) -> tuple[CompiledNetwork | None, str]:
    """The compiled network; None and the reason if OpenVINO fails or gives other outputs than PyTorch.

    Args:
        network: as for `CompiledNetwork`.
        examples: example inputs; the first has more than two rows. It is compiled for two of them and compared on the others.
        difference: how the network's own outputs and OpenVINO's differ by more than rounding; empty if they do not.
    """
    first, *others = examples
    try:
        compiled = CompiledNetwork(network, first[:2], *others)
        with torch.no_grad():
            reason = difference(network(first[2:], *others), compiled(first[2:], *others))
    except ImportError as error:
        reason = f"OpenVINO cannot be imported ({error}); install the versions in requirements.txt"
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # OpenVINO's converter raises many types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return (None, reason) if reason else (compiled, "")


def rounding_exceeded(wanted: torch.Tensor, given: torch.Tensor) -> str:
    """How OpenVINO's outputs differ from the wanted ones by more than rounding; empty if they do not."""
    if wanted.shape != given.shape:
        return f"OpenVINO returned {tuple(given.shape)} instead of {tuple(wanted.shape)}"
    largest = wanted.abs().max().item()
    if not (error := (wanted - given).abs().max().item()) <= RELATIVE_TOLERANCE * largest:  # also if it is NaN
        return f"OpenVINO's outputs are off by up to {error:.0e}, where the largest is {largest:.0e}"
    return ""


def _openvino() -> Any:
    """Imports OpenVINO with its telemetry disabled."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # Python treats it as not installed
    import openvino

    return openvino
