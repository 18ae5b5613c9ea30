"""A new evaluation against the champion, on the same slides: from stored predictions, or by scoring the champion anew."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import mlflow
import pandas as pd
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.tracking import MlflowClient

from doctogres.errors import DoctogresError, UpstreamError
from doctogres.evaluation.comparison import compare
from doctogres.evaluation.metrics import classes_of
from doctogres.files import file_digest
from doctogres.registry.gate import Versus
from doctogres.registry.versions import EVALUATION_TAG, REGISTERED_MODEL
from doctogres.settings import Preset
from doctogres.slides.splits import LeakageError
from doctogres.tracking.datasets import source_of
from doctogres.tracking.runs import DATA_TAG, PART_TAG, SLIDES_TAG
from doctogres.tracking.upstream import find_artifact

IDENTITY: Final = ("slide_id", "label", "image_md5", "mask_md5", "outcome")  # of a slide as a model is given it


@dataclass(frozen=True)
class Evaluation:
    """What a run of `evaluate` left."""

    run: Run | None  # None when it was given as files
    uri: str
    digest: str
    metrics: dict[str, Any]  # metrics.json
    predictions: pd.DataFrame  # predictions.csv, as text

    @property
    def data_digest(self) -> str:
        """The cohort's, empty where unknown."""
        return self.run.data.tags.get(DATA_TAG, "") if self.run else ""

    @cached_property
    def classes(self) -> list[str]:
        """The model's classes."""
        return classes_of(self.metrics["metrics"])


def read_evaluation(value: str) -> Evaluation:
    """The evaluation that a parameter names.

    Raises:
        UpstreamError: it is not there, or the file is not an evaluation's.
    """
    found = find_artifact(value, stage="evaluate", name="metrics", file="metrics.json")
    beside = found.run_id or str(found.path.parent)
    table = find_artifact(beside, stage="evaluate", name="predictions", file="predictions.csv").path
    try:
        metrics = json.loads(found.path.read_text(encoding="utf-8"))
    except ValueError:
        metrics = None
    if not isinstance(metrics, dict) or not {"model", "split", "metrics", "null"} <= metrics.keys():
        raise UpstreamError(f"evaluation={value}: {found.path.name} is not an evaluation's; give a run of `evaluate`")
    predictions = pd.read_csv(table, dtype=str, keep_default_na=False)
    run = MlflowClient().get_run(found.run_id) if found.run_id else None
    return Evaluation(run, found.uri, file_digest(found.path), metrics, predictions)


def split_digest(predictions: pd.DataFrame) -> str:
    """Names the scored slides: their ids, labels and, where recorded, pictures, masks and whether they were repaired."""
    columns = [name for name in IDENTITY if name in predictions]
    rows = predictions[columns].sort_values("slide_id").to_csv(index=False)
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def against(holder: ModelVersion, new: Evaluation, *, preset: Preset, seed: int, data: str) -> Versus:
    """The paired difference in macro-F1 on the slides of `new`, recomputed from both models' answers.

    The champion's stored predictions are taken when its evaluation was on the same slides (ids, labels, pictures, masks).
    Else it is scored on these by `evaluate`; if it was trained on some of them, only those that were held out from both
    count.

    Raises:
        DoctogresError: the stored answers cannot be compared.
    """
    version = str(holder.version)
    old: Evaluation | None = None
    try:
        old = read_evaluation(_evaluation_of(holder))
        if other := _other_classes(old, new):
            return Versus(version, 0, None, other)
        known = _identified(old) and _identified(new)
        if known and split_digest(old.predictions) == split_digest(new.predictions):
            return _difference(version, new, old, new.predictions["slide_id"].tolist(), preset, seed, "")
        unknown = "it is not recorded which pictures and masks both were evaluated on"
        why = "it was evaluated on other slides" if known else unknown
    except UpstreamError as error:
        why = f"its predictions could not be fetched: {error}"
    print(f"register: the champion (version {version}) is scored on these slides, because {why}", flush=True)
    try:
        again = _score_again(version, new, preset, seed, data)
    except LeakageError as error:
        return _on_unseen(version, new, old, preset, seed, str(error))
    except DoctogresError as error:
        return Versus(version, 0, None, f"{why}, and it could not be scored on these: {error}")
    if other := _other_classes(again, new):
        return Versus(version, 0, None, other)
    slides = new.predictions["slide_id"].tolist()
    if sorted(slides) != sorted(again.predictions["slide_id"]):
        return Versus(version, 0, None, f"{why}, and the cohort table that names these slides has changed since")
    return _difference(version, new, again, slides, preset, seed, f"scored on them anew, because {why}")


def _evaluation_of(holder: ModelVersion) -> str:
    run_id = holder.tags.get(EVALUATION_TAG)
    if not run_id:
        raise UpstreamError(f"version {holder.version} has no tag {EVALUATION_TAG}")
    return str(run_id)


def _score_again(version: str, new: Evaluation, preset: Preset, seed: int, data: str) -> Evaluation:
    from doctogres.stages.evaluate import evaluate  # loads torch, which the other ways do not need

    cohort = source_of(new.run) if new.run else ""
    if new.run is None or not cohort:
        raise UpstreamError("the new evaluation does not name its cohort table; give a run of `evaluate`")
    scored = evaluate(
        model=f"models:/{REGISTERED_MODEL}/{version}",
        cohort=cohort,
        split=new.metrics["split"],
        preset=preset,
        seed=seed,
        data=data or new.run.data.tags.get(SLIDES_TAG, ""),
    )
    if not scored.reused and (parent := mlflow.active_run()):
        MlflowClient().set_tag(scored.run_id, PART_TAG, parent.info.run_id)
    return read_evaluation(scored.run_id)


def _on_unseen(version: str, new: Evaluation, old: Evaluation | None, preset: Preset, seed: int, leak: str) -> Versus:
    """The comparison on the slides that were held out from both, where every class is among them."""
    trained = f"the champion was trained on some of these slides ({leak})"
    decide = "`promote=force` decides otherwise"
    if old is None or not (_identified(old) and _identified(new)):
        return Versus(version, 0, None, f"{trained}; {decide}")
    both = new.predictions.merge(old.predictions[list(IDENTITY)], on=list(IDENTITY))
    if missing := sorted(set(new.predictions["label"]) - set(both["label"])):
        lack = f"the {len(both)} of {len(new.predictions)} that neither has seen hold no {', '.join(missing)}"
        return Versus(version, 0, None, f"{trained}, and {lack}; {decide}")
    slides = both["slide_id"].tolist()
    return _difference(version, new, old, slides, preset, seed, f"those that neither has seen: {trained}")


def _identified(one: Evaluation) -> bool:
    return set(IDENTITY) <= set(one.predictions)


def _other_classes(old: Evaluation, new: Evaluation) -> str:
    if set(old.classes) == set(new.classes):
        return ""
    theirs, ours = ", ".join(sorted(old.classes)), ", ".join(sorted(new.classes))
    return f"it knows other classes ({theirs}) than this model ({ours}), and such models can never be compared"


def _difference(
    version: str, new: Evaluation, old: Evaluation, slides: list[str], preset: Preset, seed: int, remark: str
) -> Versus:
    rows, theirs = (one.predictions.set_index("slide_id").loc[slides] for one in (new, old))
    comparison = compare(
        rows["label"].tolist(),
        {"new": [rows[new.classes].to_numpy(float)], "champion": [theirs[new.classes].to_numpy(float)]},
        new.classes,
        against={"new": "champion"},
        groups=rows["group"].tolist(),
        resamples=preset.evaluate.resamples,
        seed=seed,
    )
    return Versus(version, len(slides), comparison.differences["new"], remark)
