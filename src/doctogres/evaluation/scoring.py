"""A model's answers for slides, as tables and as metrics with intervals."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from doctogres.engine import map_slides
from doctogres.errors import DoctogresError
from doctogres.evaluation.bootstrap import Estimate
from doctogres.evaluation.metrics import patch_metrics, slide_metrics
from doctogres.evaluation.null_models import null_metrics
from doctogres.model.classifier import CutSlide, SlideAnswer, SlideClassifier
from doctogres.patches.manifest import read_slide
from doctogres.patches.regions import REGION_FIELDS
from doctogres.slides.selection import CONTENT


@dataclass(frozen=True)
class Scored:
    """Slides of a split with their answers, row for row."""

    slides: pd.DataFrame
    answers: list[SlideAnswer]
    classifier: SlideClassifier

    @property
    def classes(self) -> list[str]:
        """The model's class order."""
        return list(self.classifier.card.classes)

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """(slides, classes)."""
        return np.stack([answer.probabilities for answer in self.answers])

    @property
    def raw(self) -> npt.NDArray[np.float64]:
        """The probabilities before the model's temperature, (slides, classes)."""
        return np.stack([answer.raw for answer in self.answers])

    def table(self) -> pd.DataFrame:
        """predictions.csv: a row per slide, with a column per class."""
        table = self.slides[["slide_id", "label", "group"]].reset_index(drop=True)
        table["predicted"] = [answer.label for answer in self.answers]
        table["correct"] = table["predicted"] == table["label"]
        table["confidence"] = [answer.confidence for answer in self.answers]
        table["abstained"] = [answer.abstained for answer in self.answers]
        table["n_patches"] = [len(answer.patches) for answer in self.answers]
        table[list(CONTENT)] = self.slides[list(CONTENT)].to_numpy()
        return pd.concat([table, pd.DataFrame(self.probabilities, columns=self.classes)], axis=1)

    def patches(self) -> pd.DataFrame:
        """patch_predictions.parquet: slide_id, box, area, label (the slide's), predicted, and a column per class."""
        tables = []
        for (slide_id, label), answer in zip(self.slides[["slide_id", "label"]].to_numpy(), self.answers, strict=True):
            own = answer.patches.rename(columns={"label": "predicted"}).assign(slide_id=slide_id, label=label)
            tables.append(own[["slide_id", *REGION_FIELDS, "label", "predicted", *self.classes]])
        return pd.concat(tables, ignore_index=True)


@dataclass(frozen=True)
class Measured:
    """What came of it, each with its interval."""

    metrics: dict[str, Estimate]  # of slides, and of patches under `patch/`
    null: dict[str, Estimate]
    raw_ece: Estimate


def score(classifier: SlideClassifier, slides: pd.DataFrame, root: Path) -> Iterator[SlideAnswer]:
    """The answer for every slide, in order: decoded and cut by threads, classified here."""

    def cut(row: Any) -> CutSlide:
        try:
            return classifier.cut(*read_slide(root, row))
        except DoctogresError as error:
            raise type(error)(f"{row.slide_id}: {error}") from error

    for answer in classifier.answers(map_slides(cut, slides.itertuples(index=False))):
        assert isinstance(answer, SlideAnswer)  # only errors that are put in come out
        yield answer


def measure(scored: Scored, training_labels: list[str], *, resamples: int, seed: int) -> Measured:
    """Everything that has an interval; slides of one group are resampled together.

    Args:
        scored: the slides with their answers.
        training_labels: of the slides that were not held out, for the null models.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
    """
    truth, groups, classes = scored.slides["label"].tolist(), scored.slides["group"].astype(str), scored.classes
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    grouped = options | {"groups": groups.tolist()}
    threshold = scored.classifier.card.calibration.threshold
    metrics = slide_metrics(truth, scored.probabilities, classes, threshold=threshold, **grouped)
    patches = scored.patches()
    group_of = dict(zip(scored.slides["slide_id"], groups, strict=True))
    of_patches = patch_metrics(
        patches["label"].tolist(),
        patches[classes].to_numpy(),
        classes,
        slides=patches["slide_id"].map(group_of).tolist(),
        **options,
    )
    return Measured(
        metrics=metrics | of_patches,
        null=null_metrics(truth, training_labels, classes, **grouped),
        raw_ece=slide_metrics(truth, scored.raw, classes, **grouped)["ece"],
    )
