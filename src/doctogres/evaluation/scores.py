"""metrics.json: what an evaluation found, each number with its interval."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from doctogres.errors import UpstreamError
from doctogres.evaluation.bootstrap import Estimate


def _defined(value: Any) -> Any:
    """An estimate as JSON has it, where undefined numbers are null."""
    return {name: math.nan if one is None else one for name, one in value.items()} if isinstance(value, dict) else value


StoredEstimate = Annotated[Estimate, BeforeValidator(_defined), PlainSerializer(Estimate.to_dict)]


class Scores(BaseModel):
    """What an evaluation found.

    Attributes:
        version: of the file.
        model: address of the model.
        split: of the slides.
        classes: the model's class order.
        slides: how many were scored.
        threshold: of the model, see `Calibration`.
        temperature: of the model.
        metrics: of slides, and of patches under `patch/`.
        ece_raw: calibration error of the slides' probabilities before the temperature.
        null: the null models' scores.
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

    @classmethod
    def read(cls, path: Path) -> Self:
        """The scores of a file.

        Raises:
            UpstreamError: the file is not the scores of an evaluation, or another version's.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(map(str, problem["loc"])) or "JSON"
            raise UpstreamError(
                f"{path}: not the scores of an evaluation ({where}: {problem['msg']}); give a run of `evaluate` of this "
                "version"
            ) from error

    def write(self, path: Path) -> None:
        """Writes metrics.json."""
        path.write_text(self.model_dump_json(indent=1), encoding="utf-8")
