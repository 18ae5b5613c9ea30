"""The whole-slide classifier: regions -> crops -> networks -> aggregation -> calibration, as safetensors and JSON.

Evaluation, prediction and the served model all call `SlideClassifier.classify`; there is no second way to an answer.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import BaseModel, ConfigDict

from doctogres.aggregation import aggregate
from doctogres.attention import GatedAttention
from doctogres.ensemble import Ensemble, Outputs, outputs_of
from doctogres.errors import DoctogresError
from doctogres.evaluation.calibration import Calibration, apply_temperature
from doctogres.network import create_network, load_weights, normalisation, save_weights
from doctogres.patching import REGION_FIELDS, cut_patches, find_patches
from doctogres.settings import AnswerSettings, PatchSettings

WEIGHTS_FILE: Final = "weights.safetensors"
CARD_FILE: Final = "classifier.json"
EVIDENCE_FILE: Final = "evidence.json"
ATTENTION: Final = "attention"


class NoLesionError(DoctogresError):
    """The mask is empty, so there is nothing to classify."""

    code = "empty_mask"


class Seen(BaseModel):
    """What a model was trained on, so that nobody scores it on the same: digests only, no names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_digest: str = ""
    pictures: tuple[str, ...] = ()  # MD5 of every picture file
    groups: tuple[str, ...] = ()  # `group_digest` of every group of that cohort


class ClassifierCard(BaseModel):
    """Everything but the weights that an answer depends on; travels inside the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str
    classes: tuple[str, ...]  # in the order of the networks' outputs
    class_shares: tuple[float, ...]  # of the training slides
    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch: PatchSettings
    answer: AnswerSettings
    members: int  # networks that answer together
    features: int  # of a patch before the classifier, where an attention head reads them; else 0
    calibration: Calibration
    seen: Seen


@dataclass(frozen=True)
class SlideAnswer:
    """The answer for one slide."""

    label: str
    probabilities: npt.NDArray[np.float64]  # (classes,), calibrated
    confidence: float  # the label's probability
    abstained: bool  # the confidence is below the model's threshold: not sure
    patches: pd.DataFrame  # a row per classified region: x, y, width, height, area, label, and a column per class
    note: str  # why a region under the smallest area stands for the slide, else empty


@dataclass(frozen=True)
class SlideClassifier:
    """Networks and card, ready to answer."""

    card: ClassifierCard
    network: Ensemble
    evidence: Mapping[str, Any] = field(
        default_factory=dict
    )  # how it did out of fold, for people; see `evaluation.oof`

    def save(self, folder: Path) -> None:
        """Writes `weights.safetensors`, `classifier.json` and `evidence.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.network, folder / WEIGHTS_FILE)
        (folder / CARD_FILE).write_text(self.card.model_dump_json(indent=1), encoding="utf-8")
        (folder / EVIDENCE_FILE).write_text(json.dumps(self.evidence, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> "SlideClassifier":
        """Reads what `save` wrote.

        Args:
            folder: with the three files.
            device: `auto` takes a CUDA device when there is one.
        """
        card = ClassifierCard.model_validate(json.loads((folder / CARD_FILE).read_text(encoding="utf-8")))
        size, classes = card.patch.patch_size, len(card.classes)
        attended = card.answer.aggregation == ATTENTION
        network = Ensemble(
            [create_network(card.backbone, classes=classes, size=size) for _ in range(card.members)],
            [GatedAttention(card.features, classes) for _ in range(card.members if attended else 0)],
        )
        load_weights(network, folder / WEIGHTS_FILE)
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        network = network.to(chosen, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        return cls(card, network, json.loads((folder / EVIDENCE_FILE).read_text(encoding="utf-8")))

    def with_tta(self, tta: bool) -> Self:
        """The same classifier, with test-time augmentation switched."""
        answer = self.card.answer.model_copy(update={"tta": tta})
        return replace(self, card=self.card.model_copy(update={"answer": answer}))

    def classify(self, rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_]) -> SlideAnswer:
        """The answer for a slide.

        Args:
            rgb: (height, width, 3).
            mask: (height, width), true in the lesions.

        Raises:
            NoLesionError: the mask is empty.
            DoctogresError: picture and mask differ in size.
        """
        card = self.card
        if rgb.shape[:2] != mask.shape:
            sizes = f"the mask is {mask.shape[1]}×{mask.shape[0]}, the picture {rgb.shape[1]}×{rgb.shape[0]} pixels"
            raise DoctogresError(f"{sizes}: give the mask of this picture")
        regions, kept, reasons = find_patches(mask, card.patch)
        if not kept.any():
            raise NoLesionError("the mask is empty: there is no lesion to classify; mark at least one region")
        chosen = regions[kept]
        pixels = cut_patches(rgb, chosen, card.patch)
        features = card.answer.aggregation == ATTENTION
        outputs = outputs_of(self.network, pixels, mean=card.mean, std=card.std, tta=card.answer.tta, features=features)
        (raw,) = slide_probabilities(
            self.network, outputs, [np.arange(len(chosen))], chosen[:, 4], aggregation=card.answer.aggregation
        )
        probabilities = apply_temperature(raw[None], card.calibration.temperature)[0]
        confidence = float(probabilities.max())
        return SlideAnswer(
            label=card.classes[int(probabilities.argmax())],
            probabilities=probabilities,
            confidence=confidence,
            abstained=confidence < card.calibration.threshold,
            patches=self._patch_table(chosen, outputs.of_patches()),
            note="; ".join(reason for reason, keep in zip(reasons, kept, strict=True) if keep and reason),
        )

    def _patch_table(self, regions: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> pd.DataFrame:
        table = pd.DataFrame(regions, columns=list(REGION_FIELDS))
        table["label"] = [self.card.classes[index] for index in probabilities.argmax(1)]
        return pd.concat([table, pd.DataFrame(probabilities, columns=list(self.card.classes))], axis=1)


def slide_probabilities(
    network: Ensemble,
    outputs: Outputs,
    slides: Sequence[npt.NDArray[np.int64]],
    areas: npt.NDArray[Any],
    *,
    aggregation: str,
) -> npt.NDArray[np.float64]:
    """Slides' probabilities before calibration, (slides, classes).

    Args:
        network: the one that made the outputs.
        outputs: of the patches of all slides.
        slides: row numbers of each slide's patches.
        areas: (patches,) of the regions, in pixels.
        aggregation: one of the names in `AnswerSettings`.
    """
    if aggregation == ATTENTION:
        return outputs.attended(network, slides)
    patches = outputs.of_patches()
    return np.stack([aggregate(patches[rows], weights=areas[rows], method=aggregation) for rows in slides])


def group_digest(group: str) -> str:
    """Stands for a group (a patient) in a model that may leave the house."""
    return hashlib.sha256(group.encode()).hexdigest()[:16]


def make_classifier(
    network: Ensemble,
    *,
    backbone: str,
    classes: Iterable[str],
    class_shares: Mapping[str, float],
    patch: PatchSettings,
    answer: AnswerSettings,
    calibration: Calibration,
    seen: Seen,
    evidence: Mapping[str, Any],
) -> SlideClassifier:
    """A classifier around trained networks; the normalisation is the backbone's own."""
    mean, std = normalisation(network.members[0])
    names = tuple(classes)
    card = ClassifierCard(
        backbone=backbone,
        classes=names,
        class_shares=tuple(class_shares.get(name, 0.0) for name in names),
        mean=mean,
        std=std,
        patch=patch,
        answer=answer,
        members=len(network.members),
        features=int(network.attention[0].norm.normalized_shape[0]) if network.attention else 0,  # type: ignore
        calibration=calibration,
        seen=seen,
    )
    return SlideClassifier(card, network, evidence)
