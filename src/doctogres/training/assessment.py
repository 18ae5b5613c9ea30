"""The out-of-fold predictions of a training run, their assessment, and the classifier built from its networks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.evaluation.conformal import novelty_limit
from doctogres.evaluation.oof import Assessment, assess, gather
from doctogres.evaluation.predictions import OUT_OF_FOLD, Predictions
from doctogres.files import digest
from doctogres.model.aggregation import POOLING
from doctogres.model.card import TrainingRecord
from doctogres.model.classifier import SlideClassifier, make_classifier
from doctogres.model.ensemble import Ensemble
from doctogres.model.fusion import ViewOutputs, slide_distances, slide_probabilities
from doctogres.patches.manifest import Manifest
from doctogres.patches.views import REGIONS
from doctogres.settings import AGGREGATIONS, ATTENTION, AnswerSettings, Preset
from doctogres.training.folds import Member, Parts
from doctogres.training.left_out import rows_by_slide
from doctogres.training.part import TrainingPart
from doctogres.training.sources import Source

TURNED: Final = "mean over eight flips and rotations"  # with the model's own aggregation
START: Final = "the probe that fine-tuning started from"
Kept = Sequence[tuple[Source, Ensemble]]


def by_split(members: Sequence[Member]) -> list[list[Member]]:
    """The members of every left-out fold: one per source."""
    splits: dict[tuple[int, str], list[Member]] = {}
    for member in members:
        splits.setdefault((member.split.repeat, member.split.fold), []).append(member)
    return list(splits.values())


ATTENDED: Final = {"plain": "attended", "turned": "attended_turned"}  # logits -> what attention heads say beside them


def view_outputs(members: Sequence[Member], *, logits: str, attended: str = "") -> list[ViewOutputs]:
    """The outputs of one split's members, view by view, for its slides.

    Args:
        members: of one split.
        logits: `plain`, `turned` or `start`.
        attended: `attended` or `attended_turned`; empty for none.
    """
    slides = members[0].predictions.slides
    by_view: dict[str, list[Member]] = {}
    for member in members:
        by_view.setdefault(member.split.source.view, []).append(member)
    return [
        ViewOutputs(
            view,
            [getattr(member.predictions, logits)[None] for member in of_view],
            rows_by_slide(of_view[0].predictions.slide_ids, slides),
            of_view[0].predictions.areas,
            [getattr(member.predictions, attended) for member in of_view] if attended else [],
            [member.predictions.log_distances[None] for member in of_view if member.predictions.gaussian],
        )
        for view, of_view in by_view.items()
    ]


def own_outputs(members: Sequence[Member], answer: AnswerSettings) -> list[ViewOutputs]:
    """The outputs of one split's members that the model's own answers are made from."""
    logits = "turned" if answer.tta else "plain"
    return view_outputs(members, logits=logits, attended=ATTENDED[logits] if answer.aggregation == ATTENTION else "")


def ways(members: Sequence[Member], answer: AnswerSettings) -> dict[str, npt.NDArray[np.float64]]:
    """(slides, classes) of one split by every aggregation, and by the model's own over flips and rotations; not calibrated."""
    plain, turned = (view_outputs(members, logits=logits, attended=ATTENDED[logits]) for logits in ("plain", "turned"))
    found = {way: slide_probabilities(plain, answer, aggregation=way) for way in (*POOLING, ATTENTION)}
    found[TURNED] = slide_probabilities(turned, answer)
    if members[0].predictions.start.size and answer.aggregation != ATTENTION:
        start = view_outputs(members, logits="start")
        found[START] = slide_probabilities(start, answer)
    return found


def oof_predictions(parts: Parts, members: Sequence[Member], answer: AnswerSettings) -> Predictions:
    """Patch probabilities for the left-out folds."""
    tables, probabilities = [], []
    for split in by_split(members):
        outputs = own_outputs(split, answer)
        of_views = {member.split.source.view: member.split for member in split}
        for (view, fold), output in zip(of_views.items(), outputs, strict=True):
            rows = parts[view].patches.table.iloc[fold.left_out]
            tables.append(rows.assign(repeat=fold.repeat, fold=fold.fold))
            probabilities.append(output.patches(fusion=answer.fusion))
    rows = pd.concat(tables, ignore_index=True)[list(OUT_OF_FOLD.columns)]
    return Predictions(rows, tuple(next(iter(parts.values())).classes), np.concatenate(probabilities))


def assess_members(parts: Parts, members: Sequence[Member], recipe: Preset, seed: int) -> Assessment:
    """Out-of-fold scores, calibration, and a comparison of the aggregations and of test-time augmentation.

    A fine-tuned model is also compared with the probe that it started from.
    """
    part, aggregation = next(iter(parts.values())), recipe.answer.aggregation
    by_repeat: dict[int, list[tuple[list[str], Mapping[str, npt.NDArray[np.float64]]]]] = {}
    splits = by_split(members)
    for split in splits:
        of_repeat = by_repeat.setdefault(split[0].split.repeat, [])
        of_repeat.append((split[0].predictions.slides, ways(split, recipe.answer)))
    plain_s, turned_s = np.sum([member.predictions.seconds for member in members], axis=0)
    against = {way: "mean" for way in AGGREGATIONS if way != "mean"} | {TURNED: aggregation}
    chosen = TURNED if recipe.answer.tta else aggregation
    if all(START in found for of_repeat in by_repeat.values() for _, found in of_repeat):
        against[START] = aggregation
    assessment = assess(
        gather(part.slides[["slide_id", "label", "group"]], list(by_repeat.values())),
        part.classes,
        chosen=chosen,
        against=against,
        target_precision=recipe.answer.target_precision,
        labels_coverage=recipe.answer.labels_coverage,
        group_answer=recipe.answer.group_answer,
        recipe=recipe.train.recipe,
        resamples=recipe.evaluate.resamples,
        seed=seed,
    )
    assessment.evidence["folds"] = len(splits) // recipe.train.repeats
    assessment.evidence["tta_cost"] = float(turned_s / plain_s)
    distances, groups = left_out_distances(part, members)
    return replace(assessment, novelty=novelty_limit(distances, groups, level=recipe.answer.novelty_quantile))


def left_out_distances(part: TrainingPart, members: Sequence[Member]) -> tuple[npt.NDArray[np.float64], list[str]]:
    """The distance of every slide from the patches of a training that left it out, (slides,), and the slides' groups.

    A slide occurs once in every repeat.
    """
    slides, distances = [], []
    for split in by_split(members):
        slides += split[0].predictions.slides
        distances.append(slide_distances(view_outputs(split, logits="plain")))
    groups = part.slides.set_index("slide_id")["group"].astype(str).loc[slides]
    return np.concatenate(distances), groups.tolist()


def kept_networks(members: Sequence[Member], recipe: Preset) -> Kept:
    """The fine-tuned networks of the model, source by source: all, or those of the first split."""
    chosen = members if recipe.train.ensemble else by_split(members)[0]
    attention = recipe.answer.aggregation == ATTENTION
    kept: dict[Source, list[Member]] = {}
    for member in chosen:
        kept.setdefault(member.split.source, []).append(member)
    return [
        (
            source,
            Ensemble(
                [member.trained.network for member in of_source if member.trained],
                [member.predictions.head for member in of_source if attention and member.predictions.head],
                [member.predictions.gaussian for member in of_source if member.predictions.gaussian],
            ),
        )
        for source, of_source in kept.items()
    ]


def classifier_of(
    manifest: Manifest, parts: Parts, kept: Kept, assessment: Assessment, recipe: Preset, *, holdout: bool = False
) -> SlideClassifier:
    """Builds the classifier from these networks.

    Args:
        manifest: of the patches.
        parts: the patches of every view.
        kept: sources with their networks.
        assessment: temperature, threshold and conformal limits.
        recipe: the settings of the training.
        holdout: whether the hold-out was trained on.
    """
    part = next(iter(parts.values()))
    # The left-out folds chose epochs and threshold: every slide outside the hold-out had an influence.
    slides = part.slides_of(part.all_rows(holdout=holdout))
    regions = parts.get(REGIONS, part).patches.table
    return make_classifier(
        [(source.architecture, source.view, ensemble) for source, ensemble in kept],
        recipe=recipe.train.recipe,
        classes=part.classes,
        class_shares={str(k): v for k, v in slides["label"].value_counts(normalize=True).items()},
        patch=manifest.patch,
        answer=recipe.answer,
        calibration=assessment.calibration,
        labels=assessment.labels,
        novelty=assessment.novelty,
        group=assessment.group,
        masks=manifest.masks,
        mpp=manifest.trained_mpp(slides["slide_id"]),
        region_side=round((regions[["width", "height"]].max(axis=1) / regions["slide_id"].map(manifest.unit)).median()),
        seen=TrainingRecord(
            data_digest=manifest.data_digest,
            pictures=tuple(sorted({manifest.image_md5[slide] for slide in slides["slide_id"]})),
            groups=tuple(sorted({digest(str(group)) for group in slides["group"]})),
        ),
        evidence=assessment.evidence,
    )
