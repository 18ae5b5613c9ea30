"""The whole-slide classifier: regions -> crops -> network -> aggregation, as a folder of safetensors and JSON.

Evaluation, prediction and the served model all call `SlideClassifier.classify`; there is no second way to an answer.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from doctogres.aggregation import aggregate
from doctogres.errors import DoctogresError
from doctogres.network import create_network, load_weights, normalisation, patch_probabilities, save_weights
from doctogres.patching import REGION_FIELDS, cut_patches, find_patches
from doctogres.settings import PatchSettings

WEIGHTS_FILE: Final = "weights.safetensors"
CARD_FILE: Final = "classifier.json"


class NoLesionError(DoctogresError):
    """The mask is empty, so there is nothing to classify."""

    code = "empty_mask"


class ClassifierCard(BaseModel):
    """Everything but the weights that an answer depends on; travels inside the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str
    classes: tuple[str, ...]  # in the order of the network's outputs
    class_shares: tuple[float, ...]  # of the training slides
    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch: PatchSettings
    aggregation: str


@dataclass(frozen=True)
class SlideAnswer:
    """The answer for one slide."""

    label: str
    probabilities: npt.NDArray[np.float64]  # (classes,)
    patches: pd.DataFrame  # a row per classified region: x, y, width, height, area, label, and a column per class
    note: str  # why a region under the smallest area stands for the slide, else empty


@dataclass(frozen=True)
class SlideClassifier:
    """Network and card, ready to answer."""

    card: ClassifierCard
    network: nn.Module

    def save(self, folder: Path) -> None:
        """Writes `weights.safetensors` and `classifier.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.network, folder / WEIGHTS_FILE)
        (folder / CARD_FILE).write_text(self.card.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> "SlideClassifier":
        """Reads what `save` wrote.

        Args:
            folder: with the two files.
            device: `auto` takes a CUDA device when there is one.
        """
        card = ClassifierCard.model_validate(json.loads((folder / CARD_FILE).read_text(encoding="utf-8")))
        network = create_network(card.backbone, classes=len(card.classes), size=card.patch.patch_size)
        load_weights(network, folder / WEIGHTS_FILE)
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        return cls(card, network.to(chosen).eval())

    def classify(self, rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> SlideAnswer:
        """The answer for a slide.

        Args:
            rgb: (height, width, 3).
            mask: (height, width), true in the lesions.

        Raises:
            NoLesionError: the mask is empty.
            DoctogresError: picture and mask differ in size.
        """
        if rgb.shape[:2] != mask.shape:
            sizes = f"the mask is {mask.shape[1]}×{mask.shape[0]}, the picture {rgb.shape[1]}×{rgb.shape[0]} pixels"
            raise DoctogresError(f"{sizes}: give the mask of this picture")
        regions, kept, reasons = find_patches(mask, self.card.patch)
        if not kept.any():
            raise NoLesionError("the mask is empty: there is no lesion to classify; mark at least one region")
        chosen = regions[kept]
        pixels = cut_patches(rgb, chosen, self.card.patch)
        patch_level = patch_probabilities(self.network, pixels, mean=self.card.mean, std=self.card.std).numpy()
        slide_level = aggregate(patch_level, weights=chosen[:, 4], method=self.card.aggregation)
        return SlideAnswer(
            label=self.card.classes[int(slide_level.argmax())],
            probabilities=slide_level,
            patches=self._patch_table(chosen, patch_level),
            note="; ".join(reason for reason, keep in zip(reasons, kept, strict=True) if keep and reason),
        )

    def _patch_table(self, regions: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> pd.DataFrame:
        table = pd.DataFrame(regions, columns=list(REGION_FIELDS))
        table["label"] = [self.card.classes[index] for index in probabilities.argmax(1)]
        return pd.concat([table, pd.DataFrame(probabilities, columns=list(self.card.classes))], axis=1)


def make_classifier(
    network: nn.Module,
    *,
    backbone: str,
    classes: list[str],
    class_shares: dict[str, float],
    patch: PatchSettings,
    aggregation: str,
) -> SlideClassifier:
    """A classifier around a trained network; the normalisation is the backbone's own."""
    mean, std = normalisation(network)
    card: dict[str, Any] = {"backbone": backbone, "classes": classes, "mean": mean, "std": std, "patch": patch}
    card |= {"class_shares": [class_shares.get(name, 0.0) for name in classes], "aggregation": aggregation}
    return SlideClassifier(ClassifierCard.model_validate(card), network)
