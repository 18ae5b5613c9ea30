"""The answers that a served model gave to slides whose labels are known now, beside those of the evaluated model."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from doctogres.errors import listed
from doctogres.evaluation.comparison import compare
from doctogres.evaluation.predictions import Predictions
from doctogres.evaluation.stored import StoredEstimate

ANSWERED: Final = "answered"
WITHOUT_LABEL: Final = "answered without a label"
REFUSED: Final = "refused"
OTHER_MASK: Final = "answered with another mask or none"
NOT_ASKED: Final = "not in the answer log"


class GivenAnswers(BaseModel):
    """The score of the answers as they were given.

    Attributes:
        slides: number of labelled slides.
        logged: number of different slides (picture and mask) that the answer log has an answer to.
        found: how many of them are in the answer log, and how, by the words above.
        models: number of answers by model version.
        sure: share of the answers that were sure.
        changed: number of slides whose label differs from that of the evaluated model.
        as_given: macro-F1 of the given labels, sure or not.
        rescored: macro-F1 of the evaluated model on the same slides.
        difference: the second minus the first, paired.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    slides: int
    logged: int
    found: dict[str, int]
    models: dict[str, int]
    sure: float | None = None
    changed: int = 0
    as_given: StoredEstimate | None = None
    rescored: StoredEstimate | None = None
    difference: StoredEstimate | None = None

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        counts = ", ".join(f"{count} {words}" for words, count in self.found.items())
        known = self.found.get(ANSWERED, 0)
        share = f" ({known / self.logged:.0%})" if self.logged else ""
        start = (
            f"Of {self.slides} labelled slides: {counts}. The log has answers to {self.logged} different slides; the labels of "
            f"{known} of them{share} are known now."
        )
        if self.as_given is None:
            return start
        by = ", ".join(f"{model} {count}" for model, count in self.models.items())
        return (
            f"{start} The answers as given ({by}; {self.sure:.0%} sure) reach a macro-F1 of {self.as_given}, this model reaches "
            f"{self.rescored} on the same slides: difference {self.difference}. {self.changed} labels differ."
        )


def logged_slides(answers: pd.DataFrame) -> int:
    """How many different slides (picture and mask) a log has an answer with a label to."""
    return len(answers[answers["label"].notna()].drop_duplicates(["image_sha256", "mask_sha256"]))


def join_answers(slides: pd.DataFrame, answers: pd.DataFrame) -> pd.DataFrame:
    """The newest answer of the log to each slide, by the digests of picture and mask.

    Args:
        slides: slide_id, image_sha256, mask_sha256.
        answers: of `read_answers`.

    Returns:
        slide_id, found (the words above), given, sure, confidence, model_version, time; a row per slide.
    """
    newest = answers.sort_values("time", kind="stable")
    pairs = newest.drop_duplicates(["image_sha256", "mask_sha256"], keep="last").set_index(
        ["image_sha256", "mask_sha256"]
    )
    pictures = set(newest["image_sha256"].dropna())
    rows = []
    for slide in slides.itertuples(index=False):
        key = (slide.image_sha256, slide.mask_sha256)
        if key in pairs.index:
            rows.append({"slide_id": slide.slide_id, **_said(pairs.loc[[key]].iloc[0])})
        else:
            rows.append({"slide_id": slide.slide_id, "found": OTHER_MASK if key[0] in pictures else NOT_ASKED})
    columns = ["slide_id", "found", "given", "sure", "confidence", "model_version", "time"]
    return pd.DataFrame(rows, columns=columns)


def _said(answer: Any) -> dict[str, Any]:
    said = {"model_version": answer["model_version"], "time": answer["time"].isoformat()}
    if not pd.isna(answer["refusal"]):
        return said | {"found": REFUSED}
    if pd.isna(answer["label"]):
        return said | {"found": WITHOUT_LABEL}
    known = {"given": answer["label"], "sure": not answer["abstained"], "confidence": answer["confidence"]}
    return said | {"found": ANSWERED} | known


def score_given(
    joined: pd.DataFrame, predictions: Predictions, *, logged: int, **options: Any
) -> tuple[GivenAnswers, pd.DataFrame]:
    """The score of the given answers, and the joined rows with truth and the evaluated model's answers.

    Args:
        joined: of `join_answers`.
        predictions: content of predictions.csv, of the same slides.
        logged: of `logged_slides`.
        options: of `compare`: `resamples`, `seed`.
    """
    now = predictions.rows[["slide_id", "label", "group", "predicted", "abstained"]]
    table = joined.merge(now, on="slide_id").rename(
        columns={"label": "truth", "predicted": "now", "abstained": "now_sure"}
    )
    table["now_sure"] = ~table["now_sure"].astype(bool)
    scored = table[table["found"] == ANSWERED]
    found = {str(words): int(count) for words, count in table["found"].value_counts().items()}
    models = {str(model): int(count) for model, count in scored["model_version"].value_counts().items()}
    if scored.empty:
        return GivenAnswers(slides=len(table), logged=logged, found=found, models=models), table.drop(columns="group")
    classes = [*predictions.classes, *sorted(set(scored["given"]) - set(predictions.classes))]
    names = {"as given": scored["given"], "rescored": scored["now"]}
    comparison = compare(
        scored["truth"].tolist(),
        {name: [_certain(labels.tolist(), classes)] for name, labels in names.items()},
        classes,
        against={"rescored": "as given"},
        groups=scored["group"].astype(str).tolist(),
        **options,
    )
    review = GivenAnswers(
        slides=len(table),
        logged=logged,
        found=found,
        models=models,
        sure=float(scored["sure"].astype(bool).mean()),
        changed=int((scored["given"] != scored["now"]).sum()),
        as_given=comparison.values["as given"],
        rescored=comparison.values["rescored"],
        difference=comparison.differences["rescored"],
    )
    return review, table.drop(columns="group")


def changes(table: pd.DataFrame) -> str:
    """The slides whose label differs from the given one, in words; empty without any."""
    answered = table[table["found"] == ANSWERED]
    differing = answered[answered["given"] != answered["now"]]
    sure = {True: "sure", False: "not sure"}
    return listed([
        f"{row.slide_id}: given {row.given} ({sure[bool(row.sure)]}), now {row.now} ({sure[bool(row.now_sure)]}), truth {row.truth}"
        for row in differing.itertuples()
    ], separator="; ")  # fmt: skip


def _certain(labels: Sequence[str], classes: Sequence[str]) -> NDArray[np.float64]:
    """(slides, classes) with a one for each label: macro-F1 needs no probabilities."""
    return np.eye(len(classes))[[list(classes).index(label) for label in labels]]
