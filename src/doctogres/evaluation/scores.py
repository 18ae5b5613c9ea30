"""metrics.json: the scores of an evaluation, each with its interval."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from doctogres.errors import UpstreamError
from doctogres.evaluation.given_answers import GivenAnswers
from doctogres.evaluation.stored import StoredEstimate
from doctogres.evaluation.subgroups import Subgroup


class Scores(BaseModel):
    """The scores of an evaluation.

    Attributes:
        version: the version of the file format.
        model: the model's address.
        split: the slides' split.
        classes: the model's class order.
        slides: number of slides scored.
        threshold: the model's, see `Calibration`.
        temperature: the model's.
        metrics: of slides; those of patches start with `patch/`, those of groups with `group/`.
        ece_raw: calibration error of the slide probabilities before temperature scaling.
        null: the null models' scores.
        groups: how many groups (patients) the metrics `group/...` are of; empty if the model gives no answer for groups.
        answers: what a served model said of these slides, if its answer log was given.
        subgroups: scores by site, scanner, ..., if the labels have such columns.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    model: str
    split: str
    classes: tuple[str, ...]
    slides: int
    threshold: float
    temperature: float
    metrics: dict[str, StoredEstimate]
    ece_raw: StoredEstimate
    null: dict[str, StoredEstimate]
    groups: str = ""
    subgroups: tuple[Subgroup, ...] = ()
    answers: GivenAnswers | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads metrics.json.

        Raises:
            UpstreamError: the file does not contain the scores of an evaluation, or is of another version.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"])) or "JSON"
            raise UpstreamError(
                f"{path}: not the scores of an evaluation ({where}: {problem['msg']}); give a run of `evaluate` by this "
                "version of doctogres"
            ) from error

    def write(self, path: Path) -> None:
        """Writes metrics.json."""
        path.write_text(self.model_dump_json(indent=1), encoding="utf-8")
