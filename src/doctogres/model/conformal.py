"""What a model takes from its out-of-fold scores by conformal prediction.

Does not import torch.
"""

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field


class NoveltyLimit(BaseModel):
    """The distance from the training patches at which a slide counts as unlike the training slides.

    Distances are those of `fusion.slide_distances`, out of fold; a slide's novelty is its distance as a share of the limit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: float = Field(
        gt=0, lt=1, description="Share of new slides like the training slides that lie within the limit."
    )
    limit: float = Field(gt=0)
    highest: bool  # there were too few groups for the level, so the limit is the highest distance
    quantiles: dict[str, float]  # of the training slides' novelty, by percent
    distances: int = Field(ge=0)  # of slides that were left out, once in every repeat
    groups: int = Field(ge=0)

    def novelty(self, distances: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Distances as shares of the limit."""
        return np.asarray(distances / self.limit)


class LabelSets(BaseModel):
    """Which labels an answer holds: all whose calibrated probability is at least the threshold, and always the first one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: float = Field(gt=0, lt=1, description="Share of slides whose labels are to contain the true class.")
    threshold: float = Field(ge=0, le=1, description="0 if there were too few groups: every label is then held.")
    slides: int = Field(ge=0)  # that the threshold was measured on, out of fold
    groups: int = Field(ge=0)

    def holding(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Which labels are held, (..., classes), given calibrated probabilities (..., classes)."""
        rows = np.asarray(probabilities)
        return np.asarray((rows >= self.threshold) | (rows == rows.max(axis=-1, keepdims=True)))
