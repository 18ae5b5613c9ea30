"""Several models on the same slides: the scores of each, and the paired difference of every two."""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from doctogres.errors import ParameterError
from doctogres.evaluation.comparison import compare
from doctogres.evaluation.predictions import Predictions
from doctogres.evaluation.stored import StoredEstimate


class ComparedModel(BaseModel):
    """A model among others.

    Attributes:
        name: as it was given.
        model: its address.
        evaluation: run of `evaluate` on these slides.
        metrics: of that run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    model: str
    evaluation: str
    metrics: dict[str, StoredEstimate]


class Pair(BaseModel):
    """The macro-F1 of a model minus that of another one, on the same resamples of the same slides."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    against: str
    difference: StoredEstimate

    @property
    def sentence(self) -> str:
        """Which of the two is better, if any."""
        if self.difference.low > 0:
            return f"{self.model} is better"
        return f"{self.against} is better" if self.difference.high < 0 else "no difference is shown"


class ComparedModels(BaseModel):
    """The content of metrics.json, where several models were evaluated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    split: str
    slides: int
    groups: int
    models: tuple[ComparedModel, ...]
    pairs: tuple[Pair, ...]

    def write(self, path: Path) -> None:
        """Writes metrics.json."""
        path.write_text(self.model_dump_json(indent=1), encoding="utf-8")


def compare_pairs(predictions: Mapping[str, Predictions], **options: Any) -> tuple[Pair, ...]:
    """The paired difference in macro-F1 of every two models, the one given first minus the other.

    Args:
        predictions: content of predictions.csv by model, all of the same slides.
        options: of `compare`: `resamples`, `seed`.

    Raises:
        ParameterError: two models have different classes.
    """
    first = next(iter(predictions.values()))
    for name, other in predictions.items():
        if set(other.classes) != set(first.classes):
            raise ParameterError(
                f"model={name}: its classes ({', '.join(other.classes)}) are not those of {next(iter(predictions))} "
                f"({', '.join(first.classes)}); compare models of the same classes"
            )
    slides = first.rows["slide_id"].tolist()
    tables = {name: [one.of_slides(slides, first.classes)] for name, one in predictions.items()}
    of_slides: dict[str, Any] = {"groups": first.rows["group"].astype(str).tolist(), **options}
    pairs = []
    for model, against in combinations(predictions, 2):
        both = {name: tables[name] for name in (model, against)}
        found = compare(first.rows["label"].tolist(), both, first.classes, against={model: against}, **of_slides)
        pairs.append(Pair(model=model, against=against, difference=found.differences[model]))
    return tuple(pairs)
