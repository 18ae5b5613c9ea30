"""Compares a new evaluation with the champion on the same slides, re-evaluating the champion if necessary."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from doctogres.errors import DoctogresError, UpstreamError
from doctogres.evaluation.comparison import compare
from doctogres.evaluation.predictions import Predictions
from doctogres.evaluation.scores import Scores
from doctogres.files import digest, file_digest
from doctogres.registry.gate import ChampionComparison
from doctogres.registry.versions import EVALUATION_TAG
from doctogres.slides.selection import CONTENT
from doctogres.slides.splits import LeakageError
from doctogres.tracking.runs import DATA_TAG
from doctogres.tracking.upstream import find_artifact

IDENTITY: Final = ("slide_id", "label", *CONTENT)  # identifies a slide as the model receives it
READING: Final = ("ignore_columns", "annotations", "mpp")  # parameters of `evaluate`: how slides and tables are read


@dataclass(frozen=True)
class Evaluation:
    """The results of a run of `evaluate`."""

    run: Run | None  # None if given as files
    uri: str
    digest: str
    scores: Scores
    predictions: Predictions

    @property
    def data_digest(self) -> str:
        """The cohort's data digest, empty if unknown."""
        return self.run.data.tags.get(DATA_TAG, "") if self.run else ""

    @property
    def reading(self) -> dict[str, Any]:
        """The values of READING, with which other models are evaluated on the same slides; empty where none was logged."""
        params = self.run.data.params if self.run else {}
        return {name: params.get(f"evaluate.{name}", "") for name in READING}

    def read_alike(self, other: "Evaluation") -> bool:
        """Whether equal slides were equal patches: read with the same `annotations` and `mpp`."""
        return all(self.reading[name] == other.reading[name] for name in ("annotations", "mpp"))

    @property
    def slides(self) -> pd.DataFrame:
        """The evaluated slides with the model's predictions."""
        return self.predictions.rows

    @property
    def split_digest(self) -> str:
        """Identifies the evaluated slides: ids, labels, images, masks and whether they were repaired."""
        rows = self.slides[list(IDENTITY)].sort_values("slide_id").to_csv(index=False)
        return digest(rows)


def read_evaluation(value: str, *, split: str = "") -> Evaluation:
    """The evaluation that a parameter names; `latest` is the newest one, of the split if one is given.

    Raises:
        UpstreamError: it does not exist, or the files do not belong to an evaluation.
    """
    of_split = f"params.`evaluate.split` = '{split}'" if split else ""
    metrics = find_artifact(value, stage="evaluate", name="metrics", filters=of_split)
    beside = metrics.run_id or str(metrics.path.parent)
    table = find_artifact(beside, stage="evaluate", name="predictions").path
    scores, predictions = Scores.read(metrics.path), Predictions.read_csv(table)
    run = MlflowClient().get_run(metrics.run_id) if metrics.run_id else None
    return Evaluation(run, metrics.uri, file_digest(metrics.path), scores, predictions)


def compare_with_champion(
    champion: ModelVersion, new: Evaluation, *, score_champion: Callable[[Evaluation], str], resamples: int, seed: int
) -> ChampionComparison:
    """The paired difference in macro-F1 on the slides of `new`, computed from both models' predictions.

    The champion's stored predictions are used if it was evaluated on the same slides (ids, labels, images, masks), read with
    the same `annotations` and `mpp`. Otherwise it is evaluated on them; if it was trained on some, only the slides held out
    from both models count.

    Args:
        champion: the champion's version.
        new: the evaluation of the new model.
        score_champion: evaluates the champion on the slides of an evaluation and returns the id of that run.
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.

    Raises:
        DoctogresError: the stored predictions cannot be compared.
    """
    comparison = _Comparison(str(champion.version), new, resamples, seed)
    old: Evaluation | None = None
    try:
        old = read_evaluation(_evaluation_of(champion))
        if mismatch := _class_mismatch(old, new):
            return comparison.impossible(mismatch)
        why = "it was evaluated on other slides"
        if old.split_digest == new.split_digest:
            if old.read_alike(new):
                return comparison.difference(old, new.slides["slide_id"].tolist(), "")
            why = "it was evaluated with another mpp or other annotations"
    except UpstreamError as error:
        why = f"its predictions could not be fetched: {error}"
    print(f"register: evaluating the champion (version {champion.version}) on these slides, because {why}", flush=True)
    try:
        again = read_evaluation(score_champion(new))
    except LeakageError as error:
        return comparison.on_unseen(old, str(error))
    except DoctogresError as error:
        return comparison.impossible(f"{why}, and it could not be evaluated on these: {error}")
    if mismatch := _class_mismatch(again, new):
        return comparison.impossible(mismatch)
    slides = new.slides["slide_id"].tolist()
    if sorted(slides) != sorted(again.slides["slide_id"]):
        return comparison.impossible(f"{why}, and the cohort table with these slides has changed since")
    return comparison.difference(again, slides, f"champion re-evaluated, because {why}")


def _evaluation_of(champion: ModelVersion) -> str:
    run_id = champion.tags.get(EVALUATION_TAG)
    if not run_id:
        raise UpstreamError(f"version {champion.version} has no tag {EVALUATION_TAG}")
    return str(run_id)


@dataclass(frozen=True)
class _Comparison:
    """The comparison of a new evaluation with the champion's."""

    champion: str  # its version
    new: Evaluation
    resamples: int
    seed: int

    def impossible(self, why: str) -> ChampionComparison:
        return ChampionComparison(self.champion, 0, None, why)

    def on_unseen(self, old: Evaluation | None, leak: str) -> ChampionComparison:
        """The comparison on the slides held out from both models, provided that they include every class."""
        trained = f"the champion was trained on some of these slides ({leak})"
        remedy = "promote=force overrides this"
        if old is None:
            return self.impossible(f"{trained}; {remedy}")
        if not old.read_alike(self.new):
            return self.impossible(f"{trained}, and its predictions are of another mpp or other annotations; {remedy}")
        both = self.new.slides.merge(old.slides[list(IDENTITY)], on=list(IDENTITY))
        if missing := sorted(set(self.new.slides["label"]) - set(both["label"])):
            count = len(self.new.slides)
            lack = f"the {len(both)} of {count} that neither model was trained on include no {', '.join(missing)}"
            return self.impossible(f"{trained}, and {lack}; {remedy}")
        return self.difference(
            old, both["slide_id"].tolist(), f"only those that neither model was trained on: {trained}"
        )

    def difference(self, old: Evaluation, slides: list[str], remark: str) -> ChampionComparison:
        """The comparison on these slides, which are in both evaluations."""
        rows, classes = self.new.slides.set_index("slide_id").loc[slides], self.new.scores.classes
        comparison = compare(
            rows["label"].tolist(),
            {
                "new": [self.new.predictions.of_slides(slides, classes)],
                "champion": [old.predictions.of_slides(slides, classes)],
            },
            classes,
            against={"new": "champion"},
            groups=rows["group"].tolist(),
            resamples=self.resamples,
            seed=self.seed,
        )
        return ChampionComparison(self.champion, len(slides), comparison.differences["new"], remark)


def _class_mismatch(old: Evaluation, new: Evaluation) -> str:
    if set(old.scores.classes) == set(new.scores.classes):
        return ""
    theirs, ours = ", ".join(sorted(old.scores.classes)), ", ".join(sorted(new.scores.classes))
    return f"its classes ({theirs}) differ from this model's ({ours})"
