"""Refuses to evaluate a model on slides that it was trained on."""

import pandas as pd

from doctogres.errors import listed
from doctogres.files import digest
from doctogres.model.card import TrainingRecord
from doctogres.slides.selection import TEST
from doctogres.slides.splits import LeakageError


def check_unseen(slides: pd.DataFrame, seen: TrainingRecord, *, data_digest: str, split: str, model: str = "") -> None:
    """Refuses to evaluate a model on slides that it was trained on.

    A slide counts as seen in training if an identical image file was; in the cohort on which the model was trained, also
    if any slide of its group was (for a test slide: of its patient, as given in the labels). Group names in other cohorts
    carry no information. `model` is named in the error where there are several.

    Raises:
        LeakageError: names the slides and groups.
    """
    reasons = slides["image_md5"].isin(seen.pictures).map({True: "same image file", False: ""})
    if data_digest == seen.data_digest:
        known = slides["group"].map(lambda group: digest(str(group)) in seen.groups)
        if split == TEST:  # without a patient, the group is the slide's own name, which a training slide may share
            known &= slides["group"] != slides["slide_id"]
        reasons = reasons.mask(known & (reasons == ""), "group " + slides["group"].astype(str))
    leaked = [f"{slide} ({reason})" for slide, reason in zip(slides["slide_id"], reasons, strict=True) if reason]
    if leaked:
        named = f"split={split}, model={model}" if model else f"split={split}"
        raise LeakageError(
            f"{named}: the model was trained on {len(leaked)} of these {len(slides)} slides: {listed(leaked)}; "
            "evaluate it on the hold-out of the cohort table that it was trained with, or on other slides"
        )
