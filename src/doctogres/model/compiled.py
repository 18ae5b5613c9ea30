"""A network's forward pass on the CPU with OpenVINO: the same outputs in less time (see benchmarks/README.md)."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import nn

from doctogres.model.graphs import CompiledGraph
from doctogres.model.graphs import openvino as _openvino

Outputs = Sequence[torch.Tensor]
UNTRACED: Final = {"check_trace": False}  # PyTorch's own check traces twice; `compile_checked` compares the outputs


class CompiledNetwork:
    """A network as a `CompiledGraph`; later changes to the network's weights have no effect."""

    def __init__(self, network: nn.Module, *examples: torch.Tensor):
        """Compiles the network.

        Args:
            network: on the CPU, in evaluation mode; returns a tuple of tensors.
            examples: example inputs; only the first dimension of the first input may vary later.

        Raises:
            Exception: of many types, if OpenVINO cannot convert the network.
        """
        self.model = _converted(network, *examples)
        self._graph = CompiledGraph(self.model)

    def __call__(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The network's outputs for tensors on the CPU."""
        outputs = self._graph(*(tensor.contiguous().numpy() for tensor in inputs))
        return tuple(map(torch.from_numpy, outputs))


def _converted(network: nn.Module, *examples: torch.Tensor) -> Any:
    """OpenVINO's model of a network; its constants are the network's parameters as they are, so that they can be found."""
    openvino = _openvino()
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing warns that it is deprecated and that sizes become constants
        decoder = TorchScriptPythonDecoder(network, example_input=examples, trace_kwargs=UNTRACED)
        frontend = FrontEndManager().load_by_framework("pytorch")
        model = frontend.convert(frontend.load(decoder))
    shapes = [list(example.shape) for example in examples]
    shapes[0][0] = -1
    for parameter, shape, example in zip(model.get_parameters(), shapes, examples, strict=True):
        parameter.set_partial_shape(openvino.PartialShape(shape))
        parameter.set_element_type(openvino.Type(example.numpy().dtype))
    model.validate_nodes_and_infer_types()
    return model


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
