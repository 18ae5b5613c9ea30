"""A new evaluation against the champion, on the same slides: from stored predictions, or by scoring the champion again."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

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

IDENTITY: Final = ("slide_id", "label", *CONTENT)  # of a slide as a model is given it


@dataclass(frozen=True)
class Evaluation:
    """What a run of `evaluate` left."""

    run: Run | None  # None when it was given as files
    uri: str
    digest: str
    scores: Scores
    predictions: Predictions

    @property
    def data_digest(self) -> str:
        """The cohort's, empty where unknown."""
        return self.run.data.tags.get(DATA_TAG, "") if self.run else ""

    @property
    def slides(self) -> pd.DataFrame:
        """The scored slides, as a model is given them, and what it says of them."""
        return self.predictions.rows

    @property
    def split_digest(self) -> str:
        """Names the scored slides: their ids, labels, pictures, masks and whether they were repaired."""
        rows = self.slides[list(IDENTITY)].sort_values("slide_id").to_csv(index=False)
        return digest(rows)


def read_evaluation(value: str, *, split: str = "") -> Evaluation:
    """The evaluation that a parameter names; `latest` is the newest one of the split, where one is given.

    Raises:
        UpstreamError: it is not there, or the files are not an evaluation's.
    """
    of_split = f"params.`evaluate.split` = '{split}'" if split else ""
    found = find_artifact(value, stage="evaluate", name="metrics", filters=of_split)
    beside = found.run_id or str(found.path.parent)
    table = find_artifact(beside, stage="evaluate", name="predictions").path
    scores, predictions = Scores.read(found.path), Predictions.read_csv(table)
    run = MlflowClient().get_run(found.run_id) if found.run_id else None
    return Evaluation(run, found.uri, file_digest(found.path), scores, predictions)


def compare_with_champion(
    champion: ModelVersion, new: Evaluation, *, score_champion: Callable[[Evaluation], str], resamples: int, seed: int
) -> ChampionComparison:
    """The paired difference in macro-F1 on the slides of `new`, recomputed from both models' answers.

    The champion's stored predictions are taken when its evaluation was on the same slides (ids, labels, pictures, masks).
    Else it is scored on these; if it was trained on some of them, only those that were held out from both count.

    Args:
        champion: its version.
        new: the evaluation of the other model.
        score_champion: scores the champion on the slides of an evaluation and returns the run that holds the scores.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        DoctogresError: the stored answers cannot be compared.
    """
    contest = _Contest(str(champion.version), new, resamples, seed)
    old: Evaluation | None = None
    try:
        old = read_evaluation(_evaluation_of(champion))
        if other := _other_classes(old, new):
            return contest.impossible(other)
        if old.split_digest == new.split_digest:
            return contest.difference(old, new.slides["slide_id"].tolist(), "")
        why = "it was evaluated on other slides"
    except UpstreamError as error:
        why = f"its predictions could not be fetched: {error}"
    print(f"register: the champion (version {champion.version}) is scored on these slides, because {why}", flush=True)
    try:
        again = read_evaluation(score_champion(new))
    except LeakageError as error:
        return contest.on_unseen(old, str(error))
    except DoctogresError as error:
        return contest.impossible(f"{why}, and it could not be scored on these: {error}")
    if other := _other_classes(again, new):
        return contest.impossible(other)
    slides = new.slides["slide_id"].tolist()
    if sorted(slides) != sorted(again.slides["slide_id"]):
        return contest.impossible(f"{why}, and the cohort table that names these slides has changed since")
    return contest.difference(again, slides, f"scored on them again, because {why}")


def _evaluation_of(champion: ModelVersion) -> str:
    run_id = champion.tags.get(EVALUATION_TAG)
    if not run_id:
        raise UpstreamError(f"version {champion.version} has no tag {EVALUATION_TAG}")
    return str(run_id)


@dataclass(frozen=True)
class _Contest:
    """A new evaluation that is to be compared with the champion's."""

    champion: str  # its version
    new: Evaluation
    resamples: int
    seed: int

    def impossible(self, why: str) -> ChampionComparison:
        return ChampionComparison(self.champion, 0, None, why)

    def on_unseen(self, old: Evaluation | None, leak: str) -> ChampionComparison:
        """The comparison on the slides that were held out from both, where every class is among them."""
        trained = f"the champion was trained on some of these slides ({leak})"
        decide = "`promote=force` decides otherwise"
        if old is None:
            return self.impossible(f"{trained}; {decide}")
        both = self.new.slides.merge(old.slides[list(IDENTITY)], on=list(IDENTITY))
        if missing := sorted(set(self.new.slides["label"]) - set(both["label"])):
            count = len(self.new.slides)
            lack = f"the {len(both)} of {count} that neither has seen hold no {', '.join(missing)}"
            return self.impossible(f"{trained}, and {lack}; {decide}")
        return self.difference(old, both["slide_id"].tolist(), f"those that neither has seen: {trained}")

    def difference(self, old: Evaluation, slides: list[str], remark: str) -> ChampionComparison:
        """The comparison on these slides, which both evaluations have."""
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


def _other_classes(old: Evaluation, new: Evaluation) -> str:
    if set(old.scores.classes) == set(new.scores.classes):
        return ""
    theirs, ours = ", ".join(sorted(old.scores.classes)), ", ".join(sorted(new.scores.classes))
    return f"it knows other classes ({theirs}) than this model ({ours}), and such models can never be compared"
