"""Of which cohort, classes and training run a version is, recorded in its tags, and whether that is a run's own."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import mlflow
from mlflow.entities.model_registry import ModelVersion

from doctogres.registry.champion_comparison import Evaluation
from doctogres.registry.lineage import runs_behind
from doctogres.tracking.datasets import source_of

UNKNOWN: Final = "unknown"
DIGEST_TAG: Final = "data_digest"
COHORT_TAG: Final = "cohort"
CLASSES_TAG: Final = "classes"
TRAINED_TAG: Final = "training_run"


@dataclass(frozen=True)
class Origin:
    """What a model was made of; unknown parts are empty.

    Attributes:
        data_digest: of the cohort on which it was evaluated.
        cohort: where the slides of that cohort came from.
        classes: in alphabetical order.
        run_id: of the training run.
    """

    data_digest: str
    cohort: str
    classes: tuple[str, ...]
    run_id: str

    @property
    def tags(self) -> dict[str, str]:
        """The tags of the version."""
        classes = json.dumps(self.classes, ensure_ascii=False)
        return {
            DIGEST_TAG: self.data_digest,
            COHORT_TAG: self.cohort,
            CLASSES_TAG: classes,
            TRAINED_TAG: self.run_id,
        }

    def __str__(self) -> str:
        classes = ", ".join(self.classes) or UNKNOWN
        return f"cohort {self.cohort or UNKNOWN}, classes {classes}, training run {self.run_id or UNKNOWN}"

    def differs_from(self, other: "Origin") -> str:
        """`other classes`, `other slides`, or empty; what is unknown does not differ."""
        if self.classes and other.classes and self.classes != other.classes:
            return "other classes"
        known = self.data_digest and other.data_digest
        return "other slides" if known and self.data_digest != other.data_digest else ""


def origin_of(scored: Evaluation) -> Origin:
    """Of an evaluated model."""
    run_id = mlflow.models.get_model_info(scored.scores.model).run_id
    clean = runs_behind(scored, run_id).get("clean")
    cohort = source_of(clean) if clean else ""
    return Origin(scored.data_digest, cohort, tuple(sorted(scored.scores.classes)), run_id or "")


def recorded_origin(version: ModelVersion) -> Origin:
    """Of a version, from its tags; the classes of a version without these tags are in the model itself."""
    tags: Mapping[str, str] = version.tags
    if CLASSES_TAG in tags:
        classes = json.loads(tags[CLASSES_TAG])
    else:
        info = mlflow.models.get_model_info(f"models:/{version.name}/{version.version}")
        classes = sorted((info.metadata or {}).get("classes", []))
    run_id = tags.get(TRAINED_TAG) or version.run_id or ""
    return Origin(tags.get(DIGEST_TAG, ""), tags.get(COHORT_TAG, ""), tuple(classes), run_id)
