"""The whole-slide classifier: regions -> crops -> networks -> aggregation -> calibration, as safetensors and JSON.

Evaluation, prediction and the served model all use `SlideClassifier`, so their predictions are the same.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import ValidationError

from doctogres.errors import DoctogresError, UpstreamError, WeightsError
from doctogres.files import file_digest
from doctogres.model.aggregation import aggregate
from doctogres.model.answer import CutSlide, SlideAnswer
from doctogres.model.attention import GatedAttention
from doctogres.model.card import ClassifierCard, TrainingRecord
from doctogres.model.ensemble import Ensemble, outputs_of
from doctogres.model.network import create_network, load_weights, normalisation, save_weights
from doctogres.model.temperature import ABSTAIN_ALWAYS, Calibration, apply_temperature
from doctogres.model.tiles import tissue_mask, tissue_tiles
from doctogres.patches.regions import REGION_FIELDS, cut_patches, find_patches
from doctogres.settings import ATTENTION, AnswerSettings, PatchSettings
from doctogres.slides.plausibility import MaskRange, doubt_about, fit_of
from doctogres.slides.reasons import Reason

WEIGHTS_FILE: Final = "weights.safetensors"
CARD_FILE: Final = "classifier.json"
EVIDENCE_FILE: Final = "evidence.json"
PATCHES_AT_ONCE: Final = 256  # patches of several slides that are classified together
MAX_REGIONS: Final = 2000  # per slide; 2000 patches of 224 px take 300 MB


class NoLesionError(DoctogresError):
    """The mask is empty, or no mask was given and no tissue was found, so there is nothing to classify."""

    code = Reason.EMPTY_MASK


class TooManyRegionsError(DoctogresError):
    """The mask has so many regions that their patches would exhaust the memory."""

    code = Reason.TOO_MANY_REGIONS


@dataclass(frozen=True)
class SlideClassifier:
    """The networks and their card, ready to classify slides."""

    card: ClassifierCard
    network: Ensemble
    evidence: Mapping[str, Any] = field(default_factory=dict)  # of `evaluation.oof`, for reports
    warnings: tuple[str, ...] = ()  # added to every prediction

    def save(self, folder: Path) -> None:
        """Writes `weights.safetensors`, `classifier.json` with the weights' SHA-256, and `evidence.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(self.network, folder / WEIGHTS_FILE)
        card = self.card.model_copy(update={"weights_sha256": file_digest(folder / WEIGHTS_FILE, length=None)})
        (folder / CARD_FILE).write_text(card.model_dump_json(indent=1), encoding="utf-8")
        (folder / EVIDENCE_FILE).write_text(json.dumps(self.evidence, indent=1), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto") -> "SlideClassifier":
        """Reads what `save` wrote.

        Args:
            folder: contains the three files.
            device: `auto` uses a CUDA device if there is one.

        Raises:
            WeightsError: the weights are not those that were saved.
            UpstreamError: the card was written by another version of doctogres.
        """
        try:
            card = ClassifierCard.model_validate(json.loads((folder / CARD_FILE).read_text(encoding="utf-8")))
        except ValidationError as error:
            field = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise UpstreamError(
                f"{CARD_FILE}: written by another version of doctogres ({field}: {error.errors()[0]['msg']}); "
                "serve the model with its own code (`mlflow models serve`), or train it again"
            ) from error
        if (actual := file_digest(folder / WEIGHTS_FILE, length=None)) != card.weights_sha256:
            raise WeightsError(
                f"{WEIGHTS_FILE}: not the weights that {CARD_FILE} was saved with (SHA-256 {actual[:16]}..., not "
                f"{card.weights_sha256[:16]}...): the file was damaged or changed; download the model again"
            )
        size, classes = card.patch.patch_size, len(card.classes)
        attended = card.answer.aggregation == ATTENTION
        network = Ensemble(
            [create_network(card.backbone, classes=classes, size=size) for _ in range(card.members)],
            [GatedAttention(card.features, classes) for _ in range(card.members if attended else 0)],
        )
        load_weights(network, folder / WEIGHTS_FILE)
        chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        network = network.to(chosen, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        if chosen == "cpu":
            network.compile_members(size=size)
        return cls(card, network, json.loads((folder / EVIDENCE_FILE).read_text(encoding="utf-8")))

    def adjusted(self, *, tta: bool | None = None, min_area: int | None = None) -> Self:
        """The classifier with other settings (None: the model's own); every prediction then carries a warning."""
        card = self.card
        defaults = {"tta": card.answer.tta, "min_area": card.patch.min_area}
        given = {"tta": tta, "min_area": min_area}
        changed = {name: value for name, value in given.items() if value is not None and value != defaults[name]}
        if not changed:
            return self
        changes = ", ".join(f"{name}={value} (the model's own: {defaults[name]})" for name, value in changed.items())
        answer = card.answer.model_copy(update={"tta": changed.get("tta", card.answer.tta)})
        patch = card.patch.model_copy(update={"min_area": changed.get("min_area", card.patch.min_area)})
        return replace(
            self,
            card=card.model_copy(update={"answer": answer, "patch": patch}),
            warnings=(f"{changes}: the model's score, temperature and threshold were measured with its own settings",),
        )

    def classify(self, rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_] | None) -> SlideAnswer:
        """The prediction for a slide.

        Args:
            rgb: (height, width, 3).
            mask: (height, width), true in the lesions; None classifies tiles of the tissue instead.

        Raises:
            NoLesionError: the mask is empty, or there is no tissue.
            DoctogresError: picture and mask differ in size, or the mask has too many regions.
        """
        (answer,) = self.answers([self.cut(rgb, mask)])
        assert isinstance(answer, SlideAnswer)  # only errors in the input are returned as errors
        return answer

    def cut(self, rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.bool_] | None, note: str = "") -> CutSlide:
        """The patches of a slide; arguments and errors as for `classify`. Several threads may call it at once."""
        settings = self.card.patch
        if mask is None:
            return self._cut_tissue(rgb)
        if rgb.shape[:2] != mask.shape:
            sizes = f"the mask has {mask.shape[1]}×{mask.shape[0]} pixels, the picture {rgb.shape[1]}×{rgb.shape[0]}"
            raise DoctogresError(f"{sizes}; give the mask of this picture")
        regions, kept, reasons = find_patches(mask, settings)
        if not kept.any():
            raise NoLesionError("the mask is empty, so there is no lesion to classify; mark at least one region")
        chosen = regions[kept]
        if len(chosen) > MAX_REGIONS:
            raise TooManyRegionsError(
                f"the mask has {len(chosen)} regions of at least {settings.min_area} px, more than the limit of "
                f"{MAX_REGIONS}; give a mask without specks, or a larger min_area"
            )
        warnings = [reason for reason, keep in zip(reasons, kept, strict=True) if keep and reason]
        doubt = ""
        if settings.patching != "whole":  # the mask is not used there
            doubt = doubt_about(fit_of(rgb, mask), self.card.masks, chosen[:, 2:4].max(axis=1))
        pixels = cut_patches(rgb, chosen, settings)
        stated = (*self.warnings, *filter(None, [doubt, note]), *warnings)
        return CutSlide(chosen, pixels, int((~kept).sum()), "given", stated, doubt)

    def _cut_tissue(self, rgb: npt.NDArray[np.uint8]) -> CutSlide:
        settings = self.card.patch
        if settings.patching == "whole":
            height, width = rgb.shape[:2]
            area = round(tissue_mask(rgb).mean() * height * width)
            regions, chosen = np.array([[0, 0, width, height, area]]), np.array([area > 0])
            warning = "no mask was given"
        else:
            regions, chosen = tissue_tiles(rgb, side=self.card.region_side, min_area=settings.min_area)
            warning = (
                f"no mask was given: {chosen.sum()} of the {len(chosen)} tiles that touch tissue were classified, but the "
                "model was trained on marked lesion regions, and its score and threshold apply only to those"
            )
        if not chosen.any():
            raise NoLesionError(
                "no mask was given and no stained tissue was found in the picture, so there is nothing to classify; "
                "give the mask of the lesions, or check the picture"
            )
        regions = regions[chosen]
        warnings = (*self.warnings, warning)
        return CutSlide(regions, cut_patches(rgb, regions, settings), int((~chosen).sum()), "tissue", warnings)

    def answers(self, slides: Iterable[CutSlide | DoctogresError]) -> Iterator[SlideAnswer | DoctogresError]:
        """Yields the prediction for each slide in order and passes errors through; holds a few hundred patches at a time."""
        waiting: list[CutSlide | DoctogresError] = []
        patches = 0
        for slide in slides:
            waiting.append(slide)
            patches += len(slide.regions) if isinstance(slide, CutSlide) else 0
            if patches >= PATCHES_AT_ONCE:
                yield from self._answered(waiting)
                waiting, patches = [], 0
        yield from self._answered(waiting)

    def _answered(self, slides: Sequence[CutSlide | DoctogresError]) -> Iterator[SlideAnswer | DoctogresError]:
        cut = [slide for slide in slides if isinstance(slide, CutSlide)]
        answers = self._classified(cut) if cut else iter(())
        for slide in slides:
            yield slide if isinstance(slide, DoctogresError) else next(answers)

    def _classified(self, slides: Sequence[CutSlide]) -> Iterator[SlideAnswer]:
        card = self.card
        pixels = np.concatenate([slide.pixels for slide in slides]) if len(slides) > 1 else slides[0].pixels
        features = card.answer.aggregation == ATTENTION
        outputs = outputs_of(self.network, pixels, mean=card.mean, std=card.std, tta=card.answer.tta, features=features)
        rows = np.split(np.arange(len(pixels)), np.cumsum([len(slide.regions) for slide in slides])[:-1])
        areas = np.concatenate([slide.regions[:, 4] for slide in slides])
        of_patches = outputs.of_patches()
        raw = (
            outputs.attended(self.network, rows)
            if features
            else pooled(of_patches, rows, areas, aggregation=card.answer.aggregation)
        )
        calibrated = apply_temperature(raw, card.calibration.temperature)
        for slide, patches, uncalibrated, probabilities in zip(slides, rows, raw, calibrated, strict=True):
            confidence = float(probabilities.max())
            yield SlideAnswer(
                label=card.classes[int(probabilities.argmax())],
                probabilities=probabilities,
                raw=uncalibrated,
                confidence=confidence,
                reasons=tuple(filter(None, [slide.doubt, _low_confidence(confidence, card.calibration)])),
                patches=self._patch_table(slide.regions, of_patches[patches]),
                patch_probabilities=of_patches[patches],
                dropped=slide.dropped,
                mask_source=slide.mask_source,
                warnings=slide.warnings,
            )

    def _patch_table(self, regions: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> pd.DataFrame:
        table = pd.DataFrame(regions, columns=list(REGION_FIELDS))
        return table.assign(label=[self.card.classes[index] for index in probabilities.argmax(1)])


def _low_confidence(confidence: float, calibration: Calibration) -> str:
    """The reason why a model is not sure at this confidence; empty if it is."""
    if confidence >= calibration.threshold:
        return ""
    reached = calibration.threshold < ABSTAIN_ALWAYS
    threshold = f"the model's threshold {calibration.threshold:.2f}" if reached else "what this model can be sure at"
    return Reason.LOW_CONFIDENCE.because(confidence=confidence, threshold=threshold)


def pooled(
    patches: npt.NDArray[np.float64],
    slides: Sequence[npt.NDArray[np.int64]],
    areas: npt.NDArray[Any],
    *,
    aggregation: str,
) -> npt.NDArray[np.float64]:
    """Slide probabilities pooled from patch probabilities, before calibration, (slides, classes).

    Args:
        patches: (patches, classes) of all slides.
        slides: row numbers of each slide's patches.
        areas: (patches,) region areas in pixels.
        aggregation: one of AGGREGATIONS.
    """
    return np.stack([aggregate(patches[rows], weights=areas[rows], method=aggregation) for rows in slides])


def make_classifier(
    network: Ensemble,
    *,
    backbone: str,
    classes: Iterable[str],
    class_shares: Mapping[str, float],
    patch: PatchSettings,
    answer: AnswerSettings,
    calibration: Calibration,
    region_side: int,
    masks: MaskRange | None = None,
    seen: TrainingRecord,
    evidence: Mapping[str, Any],
) -> SlideClassifier:
    """Builds a classifier from trained networks; the normalisation is the backbone's own."""
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
        region_side=region_side,
        masks=masks,
        calibration=calibration,
        seen=seen,
    )
    return SlideClassifier(card, network, evidence)
