"""The networks' out-of-fold predictions, their assessment, and the classifier built from the networks."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.evaluation.oof import Assessment, assess, gather
from doctogres.evaluation.predictions import OUT_OF_FOLD, Predictions
from doctogres.files import digest
from doctogres.model.card import TrainingRecord
from doctogres.model.classifier import SlideClassifier, make_classifier
from doctogres.model.ensemble import Ensemble
from doctogres.patches.manifest import Manifest
from doctogres.settings import AGGREGATIONS, ATTENTION, Preset
from doctogres.training.left_out import TURNED
from doctogres.training.members import Member
from doctogres.training.part import TrainingPart


def oof_predictions(part: TrainingPart, members: Sequence[Member], *, tta: bool) -> Predictions:
    """Patch probabilities for the left-out folds."""
    left_out = [
        part.patches.table.iloc[member.split.left_out].assign(repeat=member.split.repeat, fold=member.split.fold)
        for member in members
    ]
    rows = pd.concat(left_out, ignore_index=True)[list(OUT_OF_FOLD.columns)]
    return Predictions(
        rows, tuple(part.classes), np.concatenate([member.predictions.patches(tta=tta) for member in members])
    )


def assess_members(part: TrainingPart, members: Sequence[Member], recipe: Preset, seed: int) -> Assessment:
    """Out-of-fold scores, calibration, and a comparison of the aggregations and of test-time augmentation."""
    aggregation = recipe.answer.aggregation
    by_repeat: dict[int, list[tuple[list[str], Mapping[str, npt.NDArray[np.float64]]]]] = {}
    for member in members:
        predictions = member.predictions
        by_repeat.setdefault(member.split.repeat, []).append((predictions.slides, predictions.ways(aggregation)))
    plain_s, turned_s = np.sum([member.predictions.seconds for member in members], axis=0)
    assessment = assess(
        gather(part.slides[["slide_id", "label", "group"]], list(by_repeat.values())),
        part.classes,
        chosen=TURNED if recipe.answer.tta else aggregation,
        against={way: "mean" for way in AGGREGATIONS if way != "mean"} | {TURNED: aggregation},
        target_precision=recipe.answer.target_precision,
        resamples=recipe.evaluate.resamples,
        seed=seed,
    )
    assessment.evidence["folds"] = len(members) // recipe.train.repeats
    assessment.evidence["tta_cost"] = float(turned_s / plain_s)
    return assessment


def classifier_of(
    manifest: Manifest, part: TrainingPart, kept: Sequence[Member], assessment: Assessment, recipe: Preset
) -> SlideClassifier:
    """Builds the classifier from these networks."""
    slides = part.slides
    heads = [member.predictions.head for member in kept] if recipe.answer.aggregation == ATTENTION else []
    return make_classifier(
        Ensemble([member.trained.network for member in kept], heads),
        backbone=recipe.train.backbone,
        classes=part.classes,
        class_shares={str(k): v for k, v in slides["label"].value_counts(normalize=True).items()},
        patch=manifest.patch,
        answer=recipe.answer,
        calibration=assessment.calibration,
        masks=manifest.masks,
        region_side=round(part.patches.table[["width", "height"]].max(axis=1).median()),
        # The left-out folds chose epochs and threshold: every slide outside the hold-out had an influence.
        seen=TrainingRecord(
            data_digest=manifest.data_digest,
            pictures=tuple(sorted({manifest.image_md5[slide] for slide in slides["slide_id"]})),
            groups=tuple(sorted({digest(str(group)) for group in slides["group"]})),
        ),
        evidence=assessment.evidence,
    )
