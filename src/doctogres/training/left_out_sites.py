"""The scores at every site that was left out, where each fold is a site."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from doctogres.evaluation.oof import Assessment
from doctogres.evaluation.subgroups import Subgroup, subgroup_scores
from doctogres.patches.manifest import Manifest
from doctogres.settings import Preset
from doctogres.slides.subgroups import SUBGROUP
from doctogres.training.assessment import by_split
from doctogres.training.folds import Member, Parts
from doctogres.training.reference import left_out_shares


def left_out_sites(
    manifest: Manifest, parts: Parts, members: Sequence[Member], assessment: Assessment, recipe: Preset, seed: int
) -> tuple[Subgroup, ...]:
    """The scores of each site by a training without it; none if the folds are no sites.

    The temperature and the threshold are those of all left-out slides, so that only they know the site.

    Args:
        manifest: has the sites of the folds.
        parts: the patches of every view.
        members: of every left-out fold and source.
        assessment: temperature and threshold.
        recipe: the settings of the training.
        seed: of the bootstrap.
    """
    if not manifest.fold_names:
        return ()
    part, splits = next(iter(parts.values())), by_split(members)
    known = part.slides.set_index("slide_id")[["label", "group"]]
    tables = [
        known.loc[split[0].predictions.slides].assign(site=manifest.fold_names[split[0].split.fold]) for split in splits
    ]
    shares = np.concatenate([left_out_shares(split, assessment, recipe.answer) for split in splits])
    slides = pd.concat(tables, ignore_index=True).rename(columns={"site": f"{SUBGROUP}left out"})
    sure = shares.max(axis=1) >= assessment.calibration.threshold
    options = {"resamples": recipe.evaluate.resamples, "seed": seed}
    return subgroup_scores(slides, [f"{SUBGROUP}left out"], shares, part.classes, sure=sure, **options)
