"""What the answers to the training slides look like, out of fold: what `monitor` compares the answer log with."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.evaluation.oof import Assessment
from doctogres.model.fusion import slide_distances, slide_probabilities
from doctogres.model.temperature import apply_temperature
from doctogres.patches.manifest import Manifest
from doctogres.settings import AnswerSettings
from doctogres.training.assessment import by_split, view_outputs
from doctogres.training.folds import Member, Parts


def reference_of(
    manifest: Manifest, parts: Parts, members: Sequence[Member], assessment: Assessment, answer: AnswerSettings
) -> pd.DataFrame:
    """A row per training slide, without names, of the first repeat.

    Args:
        manifest: has the figures of the slides.
        parts: the patches of every view.
        members: of every left-out fold and source.
        assessment: temperature and novelty limit.
        answer: how the outputs are pooled.
    """
    part = next(iter(parts.values()))
    splits = [split for split in by_split(members) if split[0].split.repeat == 0]
    said = pd.concat([_said(split, part.classes, assessment, answer) for split in splits])
    of_slides = part.patches.table.groupby("slide_id")
    sides = part.patches.table[["width", "height"]].max(axis=1)
    said["n_patches"] = of_slides.size()
    said["patch_side"] = sides.groupby(part.patches.table["slide_id"]).median()
    figures = pd.DataFrame(dict(manifest.figures)).T
    return said.join(figures.astype(float)).round(5).reset_index(drop=True)


def _said(split: Sequence[Member], classes: list[str], assessment: Assessment, answer: AnswerSettings) -> pd.DataFrame:
    """Label, confidence and novelty of the slides that a split left out."""
    shares = left_out_shares(split, assessment, answer)
    said = pd.DataFrame(
        {"label": np.array(classes)[shares.argmax(axis=1)], "confidence": shares.max(axis=1)},
        index=split[0].predictions.slides,
    )
    if assessment.novelty:
        said["novelty"] = assessment.novelty.novelty(slide_distances(view_outputs(split, logits="plain")))
    return said


def left_out_shares(split: Sequence[Member], assessment: Assessment, answer: AnswerSettings) -> npt.NDArray[np.float64]:
    """Calibrated probabilities of the slides that a split left out, (slides, classes)."""
    way, attended = ("turned", "attended_turned") if answer.tta else ("plain", "attended")
    raw = slide_probabilities(view_outputs(split, logits=way, attended=attended), answer)
    return apply_temperature(raw, assessment.calibration.temperature)
