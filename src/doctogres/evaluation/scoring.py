"""Classifies the slides of a split; the predictions as tables and as metrics with intervals."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.errors import DoctogresError
from doctogres.evaluation.answered import Answered, answered
from doctogres.evaluation.conformal import mean_metrics
from doctogres.evaluation.metrics import patch_metrics, slide_metrics
from doctogres.evaluation.null_models import null_metrics
from doctogres.evaluation.predictions import PATCHES, Predictions
from doctogres.evaluation.scored_groups import ScoredGroups
from doctogres.evaluation.scores import Scores
from doctogres.evaluation.subgroups import subgroup_scores
from doctogres.model.answer import SlideAnswer
from doctogres.model.classifier import SlideClassifier
from doctogres.records.slide import Slide, slides_of
from doctogres.slides.selection import CONTENT
from doctogres.slides.subgroups import subgroup_columns


@dataclass(frozen=True)
class Scored:
    """The slides of a split with their answers, row for row."""

    slides: pd.DataFrame
    answers: list[SlideAnswer]
    classifier: SlideClassifier

    @property
    def classes(self) -> tuple[str, ...]:
        """The model's class order."""
        return self.classifier.card.classes

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """(slides, classes)."""
        return np.stack([answer.probabilities for answer in self.answers])

    @property
    def raw(self) -> npt.NDArray[np.float64]:
        """The probabilities before temperature scaling, (slides, classes)."""
        return np.stack([answer.raw for answer in self.answers])

    def of_slides(self) -> Predictions:
        """The content of predictions.csv."""
        rows = self.slides[["slide_id", "label", "group"]].reset_index(drop=True)
        rows["predicted"] = [answer.label for answer in self.answers]
        rows["correct"] = rows["predicted"] == rows["label"]
        rows["confidence"] = [answer.confidence for answer in self.answers]
        rows["abstained"] = [answer.abstained for answer in self.answers]
        rows["reason"] = [answer.note for answer in self.answers]
        rows["labels"] = [answer.valid_labels for answer in self.answers]
        rows["novelty"] = [answer.novelty for answer in self.answers]
        rows["n_patches"] = [len(answer.patches) for answer in self.answers]
        kept = [*CONTENT, *subgroup_columns(self.slides)]
        rows[kept] = self.slides[kept].to_numpy()
        return Predictions(rows, self.classes, self.probabilities)

    def of_patches(self) -> Predictions:
        """The content of patch_predictions.parquet, with the slides' labels."""
        labels = dict(zip(self.slides["slide_id"], self.slides["label"], strict=True))
        patches = patch_predictions(self.slides["slide_id"], self.answers, self.classes)
        return replace(patches, rows=patches.rows.assign(label=patches.rows["slide_id"].map(labels)))


def patch_predictions(slides: Iterable[str], answers: Iterable[SlideAnswer], classes: tuple[str, ...]) -> Predictions:
    """The content of patch_predictions.parquet for these slides."""
    rows, probabilities = [], []
    for slide, answer in zip(slides, answers, strict=True):
        rows.append(answer.patches.rename(columns={"label": "predicted"}).assign(slide_id=slide))
        probabilities.append(answer.patch_probabilities)
    table = pd.concat(rows, ignore_index=True)[list(PATCHES.columns)]
    return Predictions(table, classes, np.concatenate(probabilities))


def score(classifier: SlideClassifier, slides: pd.DataFrame, root: Path) -> Iterator[SlideAnswer]:
    """Yields the answer for every slide, in order; slides are decoded and cut in worker threads.

    Raises:
        DoctogresError: a slide has none; names it.
    """
    rows = slides_of(slides)
    return map(answer_of, rows, answered(classifier, rows, root))


def answer_of(slide: Slide, given: Answered | DoctogresError) -> SlideAnswer:
    """The answer to a slide, which must have one."""
    if isinstance(given, DoctogresError):
        raise type(given)(f"{slide.slide_id}: {given}") from given
    return given.answer


def measure(
    scored: Scored,
    training_labels: list[str] | None,
    *,
    model: str,
    split: str,
    resamples: int,
    seed: int,
    groups: ScoredGroups | None = None,
    subgroups: Sequence[str] = (),
) -> Scores:
    """All scores that have an interval; slides of one group are resampled together.

    Args:
        scored: the slides with their answers.
        training_labels: labels of the slides that were not held out, for the null models; None if only the model knows them.
        model: the model's address.
        split: the slides' split.
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.
        groups: the answers for groups, if the model gives any.
        subgroups: the columns by which the scores are split, too.
    """
    truth, group, classes = scored.slides["label"].tolist(), scored.slides["group"].astype(str), scored.classes
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    grouped = options | {"groups": group.tolist()}
    calibration = scored.classifier.card.calibration
    sure = np.array([not answer.abstained for answer in scored.answers])
    metrics = slide_metrics(truth, scored.probabilities, classes, sure=sure, **grouped)
    metrics |= mean_metrics(_conformal(scored), **grouped)
    patches = scored.of_patches()
    group_of = dict(zip(scored.slides["slide_id"], group, strict=True))
    of_patches = patch_metrics(
        patches.rows["label"].tolist(),
        patches.probabilities,
        classes,
        slides=patches.rows["slide_id"].map(group_of).tolist(),
        **options,
    )
    return Scores(
        model=model,
        split=split,
        classes=classes,
        slides=len(scored.slides),
        threshold=calibration.threshold,
        temperature=calibration.temperature,
        metrics=metrics | of_patches | (groups.metrics if groups else {}),
        ece_raw=slide_metrics(truth, scored.raw, classes, **grouped)["ece"],
        null=null_metrics(truth, training_labels or _shares(scored.classifier), classes, **grouped),
        groups=groups.note if groups else "",
        subgroups=subgroup_scores(scored.slides, subgroups, scored.probabilities, classes, sure=sure, **options),
    )


def _shares(classifier: SlideClassifier) -> dict[str, float]:
    """The share of each class among the training slides, as the model remembers it."""
    return dict(zip(classifier.card.classes, classifier.card.class_shares, strict=True))


def _conformal(scored: Scored) -> dict[str, npt.NDArray[Any]]:
    """What the model's conformal limits say of each slide; nothing if it has none."""
    card, rows = scored.classifier.card, list(zip(scored.slides["label"], scored.answers, strict=True))
    found = {}
    if card.labels:
        found["labels_coverage"] = np.array([label in answer.labels for label, answer in rows])
        found["labels_size"] = np.array([len(answer.labels) for _, answer in rows])
    if card.novelty:
        found["novel"] = np.array([answer.novel for _, answer in rows])
    return found
