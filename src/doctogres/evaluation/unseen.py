"""Refuses to score a model on what it was trained on."""

import pandas as pd

from doctogres.errors import listed
from doctogres.files import digest
from doctogres.model.card import TrainingRecord
from doctogres.slides.selection import TEST
from doctogres.slides.splits import LeakageError


def check_unseen(slides: pd.DataFrame, seen: TrainingRecord, *, data_digest: str, split: str) -> None:
    """Refuses to score a model on what it was trained on.

    A slide was seen if its picture was, file for file, or, in the cohort that the model comes from, if a slide of its
    group was (of a test slide: of its patient, as the labels name it). Group names of other cohorts say nothing.

    Raises:
        LeakageError: names slides and groups.
    """
    reasons = slides["image_md5"].isin(seen.pictures).map({True: "this picture", False: ""})
    if data_digest == seen.data_digest:
        known = slides["group"].map(lambda group: digest(str(group)) in seen.groups)
        if split == TEST:  # without a patient the group is the slide's own name, which a training slide may have too
            known &= slides["group"] != slides["slide_id"]
        reasons = reasons.mask(known & (reasons == ""), "its group " + slides["group"].astype(str))
    found = [f"{slide} ({reason})" for slide, reason in zip(slides["slide_id"], reasons, strict=True) if reason]
    if found:
        raise LeakageError(
            f"split={split}: the model has seen {len(found)} of the {len(slides)} slides in training: {listed(found)}; "
            "score it on the hold-out of the cohort table that it was trained on, or on other slides"
        )
