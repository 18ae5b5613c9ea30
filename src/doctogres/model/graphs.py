"""The networks of a source as an OpenVINO graph beside their weights, for a server that then needs no PyTorch. Loads no torch.

`graph-0.xml` is OpenVINO's format, but its constants lie in `weights.safetensors`, which remains the only copy of the weights,
and, as far as they are no weights, in `graph-0.safetensors`. This file also has PyTorch's outputs for a few patches, with which
the graph is compared wherever it is loaded.
"""

import hashlib
import json
import logging
import sys
import threading
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from doctogres.model.card import ClassifierCard
from doctogres.model.fusion import softmax
from doctogres.model.gaussian import Gaussian
from doctogres.slides.turns import TURNS, turned

BATCH: Final = 16  # patches; larger batches are no faster on the CPU and take more memory: see benchmarks/README.md
TOLERANCE: Final = 1e-5  # maximum difference between OpenVINO's and PyTorch's probabilities
RELATIVE_TOLERANCE: Final = 1e-4  # maximum difference of any output, as a share of its largest value
# On some processors the default precision is bfloat16, which has only three significant digits.
SETTINGS: Final = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
GPUS: Final = (Path("/dev/nvidiactl"), Path("/dev/dxg"))  # there where a CUDA device may be
CONSTANTS: Final = "constants"
logger: Final = logging.getLogger(__name__)
Arrays = Sequence[npt.NDArray[Any]]


def openvino() -> Any:
    """Imports OpenVINO with its telemetry disabled."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # Python treats it as not installed
    import openvino

    return openvino


@cache
def _core() -> Any:
    """OpenVINO's core, one for the process.

    Where a processor needs it (AMX), the core's CPU plugin gives the thread that loads it another stack for signals, and frees
    this stack when the core ends, in whatever thread that is: the next Ctrl-C or SIGTERM would crash the process.
    """
    return openvino().Core()


class CompiledGraph:
    """A graph that runs on all cores, in float32, for any number of patches.

    It may be called from several threads; forward passes run one at a time, so that memory does not grow with callers.
    """

    def __init__(self, model: Any):
        self._request = _core().compile_model(model, "CPU", SETTINGS).create_infer_request()
        self._lock = threading.Lock()

    def __call__(self, *inputs: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        """The graph's outputs."""
        with self._lock:
            outputs = self._request.infer(list(inputs), share_inputs=True, share_outputs=True).values()
            return tuple(output.copy() for output in outputs)


@dataclass(frozen=True)
class GraphOutputs:
    """What the networks of a source say of patches.

    Attributes:
        logits: (members, patches, classes), the mean over flips and rotations.
        features: per member, (patches, features) of the patches as they are; empty if the graph has none.
    """

    logits: npt.NDArray[np.float64]
    features: list[npt.NDArray[np.float32]]

    def log_distances(self, ensemble: "GraphEnsemble") -> npt.NDArray[np.float64]:
        """Of the patches from every member's training patches, (members, patches)."""
        return np.stack([of.log_distances(each) for of, each in zip(ensemble.gaussians, self.features, strict=True)])


class GraphEnsemble:
    """The networks of a source from their stored graph; answers as `ensemble.Ensemble` does.

    Args:
        graph: gives every member's logits, each followed by its features if there are Gaussians.
        gaussians: empty, or that of every member's training features.
    """

    def __init__(self, graph: CompiledGraph, gaussians: Sequence[Gaussian] = ()):
        self._graph, self.gaussians, self._each = graph, gaussians, 2 if gaussians else 1

    def outputs(
        self,
        pixels: npt.NDArray[np.uint8],
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        tta: bool,
        before_pass: Callable[[int], None],
    ) -> GraphOutputs:
        """The outputs for patches (patches, size, size, 3); `mean` and `std` are per channel, the others as in `outputs_of`."""
        statistics = np.array(mean, np.float32), np.array(std, np.float32)
        views: list[list[Arrays]] = [[] for _ in (TURNS if tta else TURNS[:1])]
        for start in range(0, len(pixels), BATCH):
            for view, found in enumerate(views):
                patches = turned(pixels[start : start + BATCH], view, axes=(1, 2))
                before_pass(len(patches))
                found.append(self._graph(np.ascontiguousarray(patches), *statistics))
        whole = [[np.concatenate(batches) for batches in zip(*found, strict=True)] for found in views]
        logits = np.array([found[:: self._each] for found in whole], np.float64).mean(axis=0)
        return GraphOutputs(logits, whole[0][1 :: self._each] if self.gaussians else [])


def probe(size: int) -> npt.NDArray[np.uint8]:
    """Patches with which a graph is compared with PyTorch, (3, size, size, 3)."""
    return np.random.default_rng(0).integers(0, 256, (3, size, size, 3), np.uint8)


PROBE_STATISTICS: Final = np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32)


def difference(wanted: Arrays, given: Arrays, *, each: int) -> str:
    """How outputs differ from the wanted ones by more than rounding; empty if they do not.

    Args:
        wanted: per member the logits, and what else it gives.
        given: the same.
        each: number of outputs per member.
    """
    for expected, actual in zip(wanted[::each], given[::each], strict=True):
        if expected.shape != actual.shape:
            return f"OpenVINO returned {len(actual)} patches instead of {len(expected)}"
        error = np.abs(softmax(expected) - softmax(actual)).max()
        if not error <= TOLERANCE:  # also if it is NaN
            return f"OpenVINO's probabilities are off by up to {error:.0e}"
    return next(filter(None, map(rounding_exceeded, wanted, given)), "")


def rounding_exceeded(wanted: npt.NDArray[Any], given: npt.NDArray[Any]) -> str:
    """How OpenVINO's outputs differ from the wanted ones by more than rounding; empty if they do not."""
    if wanted.shape != given.shape:
        return f"OpenVINO returned {given.shape} instead of {wanted.shape}"
    largest = np.abs(wanted).max()
    if not (error := np.abs(wanted - given).max()) <= RELATIVE_TOLERANCE * largest:  # also if it is NaN
        return f"OpenVINO's outputs are off by up to {error:.0e}, where the largest is {largest:.0e}"
    return ""


def write_graph(model: Any, outputs: Arrays, weights: Path, number: int) -> None:
    """Writes a source's graph beside the weights.

    Args:
        model: OpenVINO's.
        outputs: PyTorch's for the `probe` patches.
        weights: the safetensors file, which has all weights.
        number: of the source.
    """
    xml, constants = _graph_files(weights.parent, number)
    binary = xml.with_suffix(".bin")
    openvino().serialize(model, xml, binary)
    tree, content = ElementTree.parse(xml), binary.read_bytes()
    places, start, rest = _places(weights), weights.stat().st_size, bytearray()
    for data in tree.iter("data"):
        if "offset" in data.attrib:
            offset, size = int(data.attrib["offset"]), int(data.attrib["size"])
            value = content[offset : offset + size]
            place = places.get(hashlib.sha256(value).digest())
            if place is None:
                rest.extend(bytes(-(start + len(rest)) % 64))  # OpenVINO aligns constants
                place = start + len(rest)
                rest.extend(value)
            data.set("offset", str(place))
    tree.write(xml)
    binary.unlink()
    arrays = {CONSTANTS: np.frombuffer(bytes(rest), np.uint8)}
    save_file(arrays | {str(place): np.ascontiguousarray(output) for place, output in enumerate(outputs)}, constants)


def read_graphs(weights: Path, card: ClassifierCard) -> tuple[GraphEnsemble, ...] | None:
    """The networks of a card from their graphs; None if they have none, or if PyTorch is to run them.

    Args:
        weights: the file beside which they lie.
        card: of the classifier.
    """
    files = [_graph_files(weights.parent, number) for number in range(len(card.sources))]
    if not all(xml.is_file() for xml, _ in files) or any(device.exists() for device in GPUS):
        return None
    try:
        return tuple(_read(weights, *graph, number, card) for number, graph in enumerate(files))
    except (ImportError, RuntimeError, ValueError, KeyError, OSError, SafetensorError) as error:
        logger.warning("the networks are converted anew, so the start takes longer: %s", str(error).split("\n")[0])
        return None


def _read(weights: Path, xml: Path, constants: Path, number: int, card: ClassifierCard) -> GraphEnsemble:
    source, stored = card.sources[number], load_file(constants)
    parts = np.fromfile(weights, np.uint8), stored.pop(CONSTANTS)
    whole = openvino().Tensor(openvino().Type.u8, [sum(map(len, parts))])
    np.concatenate(parts, out=whole.data)
    graph = CompiledGraph(_core().read_model(xml.read_bytes(), whole))
    wanted = [stored[str(place)] for place in range(len(stored))]
    given = graph(probe(card.patch.patch_size), *PROBE_STATISTICS)
    if reason := difference(wanted, given, each=len(wanted) // source.members):
        raise ValueError(reason)
    with safe_open(weights, "numpy") as values:
        gaussians = [
            Gaussian(*(values.get_tensor(f"{number}.gaussians.{member}.{name}") for name in Gaussian.NAMES))
            for member in range(source.members if card.novelty else 0)
        ]
    return GraphEnsemble(graph, gaussians)


def _graph_files(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"graph-{number}.xml", folder / f"graph-{number}.safetensors"


def _places(weights: Path) -> dict[bytes, int]:
    """Where every tensor of a safetensors file begins, by the SHA-256 of its bytes."""
    content = np.memmap(weights, np.uint8, "r")
    size = int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(content[8 : 8 + size].tobytes())
    header.pop("__metadata__", None)
    ranges = [[8 + size + offset for offset in tensor["data_offsets"]] for tensor in header.values()]
    return {hashlib.sha256(content[start:end].tobytes()).digest(): start for start, end in ranges}
