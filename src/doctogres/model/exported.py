"""The networks of a model as one network for other programs: TorchScript for QuPath's WSInfer extension, and ONNX.

It says of a patch what the model says, flips and rotations included. Pooling to slides, calibration, novelty and abstention stay
behind: a program that gives a network one square at a time cannot do them.
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from doctogres.errors import DoctogresError, ParameterError
from doctogres.model.card import ClassifierCard
from doctogres.model.classifier import SlideClassifier
from doctogres.model.ensemble import outputs_of
from doctogres.model.fusion import JOINED, ViewOutputs
from doctogres.model.network import standardise
from doctogres.patches.views import REGIONS, WHOLE, size_of, square_of
from doctogres.slides.turns import TURNS

WSINFER: Final = "wsinfer"
ONNX: Final = "onnx"
FILES: Final = {WSINFER: "torchscript_model.pt", ONNX: "model.onnx"}
CONFIG: Final = "config.json"
TOLERANCE: Final = 1e-4  # of the exported network's probabilities
CHECKED: Final = (1, 5)  # patches at a time: the number must not have become a constant

Run = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]  # (patches, 3, side, side) in 0..1 -> outputs


class PatchNetwork(nn.Module):
    """The log of a model's patch probabilities, so that a softmax, which such programs apply, gives the probabilities.

    Args:
        classifier: with one view.
    """

    def __init__(self, classifier: SlideClassifier):
        super().__init__()
        card = classifier.card
        self.sources = nn.ModuleList(network.members for network in classifier.networks)
        self.statistics = [(source.architecture.mean, source.architecture.std) for source in card.sources]
        self.turns = TURNS if card.answer.tta else TURNS[:1]
        self.joined = card.answer.fusion == JOINED

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """(patches, 3, side, side) in 0..1 -> (patches, classes)."""
        turned = [_turned(patches, quarters, mirrored) for quarters, mirrored in self.turns]
        logits = []  # per source, (members, patches, classes)
        for members, (mean, std) in zip(self.sources, self.statistics, strict=True):
            views = [standardise(patch, mean, std) for patch in turned]
            of_members = [torch.stack([member(view) for view in views]).mean(0) for member in members]  # type: ignore[attr-defined]
            logits.append(torch.stack(of_members))
        voters = torch.stack(logits).sum(0) if self.joined else torch.cat(logits)
        return voters.softmax(-1).mean(0).clamp_min(torch.finfo(torch.float32).tiny).log()


def _turned(patches: torch.Tensor, quarters: int, mirrored: bool) -> torch.Tensor:
    quarter = torch.rot90(patches, quarters, (2, 3))
    return torch.flip(quarter, (3,)) if mirrored else quarter


def check_expressible(card: ClassifierCard, name: str) -> None:
    """Refuses models of which no network on one square says the same.

    Args:
        card: of the model.
        name: of the model, for the message.

    Raises:
        ParameterError: the model sees several views, or the whole picture.
    """
    if len(card.views) > 1:
        raise ParameterError(
            f"model={name}: it sees every region in {len(card.views)} views ({', '.join(card.views)}), but an exported network "
            f"gets one square at a time; train one with views={card.views[0]} for it"
        )
    if card.views == (WHOLE,):
        raise ParameterError(
            f"model={name}: it sees whole pictures, not patches; train one with patching=window, tiles or regions for it"
        )


def patch_side(card: ClassifierCard) -> int:
    """The side in pixels of the squares that are cut: of windows and tiles, or of the median training region with its margin."""
    view = card.views[0]
    side = card.region_side if view == REGIONS else size_of(view)
    return square_of(np.array([0, 0, side, side]), view, card.patch)[2]


def configuration(card: ClassifierCard, *, mpp: float) -> dict[str, Any]:
    """WSInfer's config.json, version 1.0. The network standardises by itself, because several may have their own statistics.

    Args:
        card: of the model.
        mpp: microns per pixel of the slides that it was trained on.
    """
    return {
        "spec_version": "1.0",
        "architecture": card.sources[0].architecture.name,
        "num_classes": len(card.classes),
        "class_names": list(card.classes),
        "patch_size_pixels": patch_side(card),
        "spacing_um_px": mpp,
        "transform": [
            {"name": "Resize", "arguments": {"size": card.patch.patch_size}},
            {"name": "ToTensor"},
        ],
    }


def export_network(classifier: SlideClassifier, kind: str, folder: Path) -> float:
    """Writes the network, loads it again, and compares it with the model.

    Args:
        classifier: see `check_expressible`; its networks are moved to the CPU.
        kind: wsinfer or onnx.
        folder: where its file goes.

    Returns:
        The largest difference of a probability.

    Raises:
        ParameterError: onnx without the packages of the extra `export`.
        DoctogresError: the exported network says something else.
    """
    size = classifier.card.patch.patch_size
    network = PatchNetwork(classifier).eval().cpu().to(memory_format=torch.contiguous_format)
    example = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    path = folder / FILES[kind]
    run = {WSINFER: _torchscript, ONNX: _onnx}[kind](network, example, path)
    worst = max(_difference(classifier, run, patches, size) for patches in CHECKED)
    if not worst <= TOLERANCE:  # also if it is no number
        raise DoctogresError(
            f"format={kind}: the exported network's probabilities differ by up to {worst:.0e} from the model's, more than "
            f"{TOLERANCE:.0e}; its architecture ({classifier.card.sources[0].architecture.name}) cannot be exported so"
        )
    return worst


def write_configuration(card: ClassifierCard, folder: Path, *, mpp: float) -> None:
    """Writes config.json."""
    (folder / CONFIG).write_text(json.dumps(configuration(card, mpp=mpp), indent=1), encoding="utf-8")


def _torchscript(network: nn.Module, example: torch.Tensor, path: Path) -> Run:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # PyTorch deprecates TorchScript, which is what WSInfer reads
        torch.jit.trace(network, example, check_trace=False).save(str(path))  # type: ignore[no-untyped-call]
        loaded = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def run(patches: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            return np.asarray(loaded(torch.from_numpy(patches)).numpy())

    return run


def _onnx(network: nn.Module, example: torch.Tensor, path: Path) -> Run:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401  # what torch.onnx.export needs
    except ImportError as error:
        raise ParameterError(
            f"format=onnx: the package {error.name} is missing; pip install 'onnx' 'onnxscript' 'onnxruntime' (the extra `export`)"
        ) from error
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            str(path),
            input_names=["patches"],
            output_names=["log_probabilities"],
            dynamic_shapes=({0: torch.export.Dim("n", min=1)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda patches: np.asarray(session.run(None, {"patches": patches})[0])


def _difference(classifier: SlideClassifier, run: Run, patches: int, size: int) -> float:
    """The largest difference of a probability on so many patches of noise."""
    pixels = np.random.default_rng(patches).integers(0, 256, (patches, size, size, 3)).astype(np.uint8)
    unit = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32) / np.float32(255)
    outputs = run(unit).astype(np.float64)
    odds = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return float(np.abs(odds / odds.sum(axis=1, keepdims=True) - patch_probabilities(classifier, pixels)).max())


def patch_probabilities(classifier: SlideClassifier, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """What the model says of patches, (patches, classes).

    Args:
        classifier: with one view.
        pixels: (patches, size, size, 3).
    """
    card = classifier.card
    logits = [
        outputs_of(
            network, pixels, mean=source.architecture.mean, std=source.architecture.std, tta=card.answer.tta
        ).logits
        for source, network in zip(card.sources, classifier.networks, strict=True)
    ]
    rows = np.arange(len(pixels))
    return ViewOutputs(card.views[0], logits, [rows], rows).patches(fusion=card.answer.fusion)
