"""A model's temperature and abstention threshold, applied to its probabilities."""

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from doctogres.slides.reasons import Reason

COLDEST: Final = 0.05
HOTTEST: Final = 20.0
ABSTAIN_ALWAYS: Final = 1.1  # a threshold that no confidence reaches


class Calibration(BaseModel):
    """A model's temperature and abstention threshold, and their effect on its out-of-fold predictions.

    Values that were not measured are None. `coverage` and `precision` are the share of slides above the threshold and
    the share of correct predictions among them, on the same slides that chose the threshold and hence somewhat
    optimistic; `ece_after` and `log_loss_after` are cross-fitted, see `calibrate`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperature: float = Field(ge=COLDEST, le=HOTTEST)
    threshold: float = Field(
        ge=0, le=ABSTAIN_ALWAYS, description="Minimum calibrated confidence; the model abstains on slides below it."
    )
    target_precision: float = Field(gt=0, le=1)
    slides: int = Field(ge=0)
    coverage: float | None
    precision: float | None
    ece_before: float | None
    ece_after: float | None
    log_loss_before: float | None
    log_loss_after: float | None

    @classmethod
    def none(cls, target_precision: float) -> Self:
        """Returns the calibration of a model without out-of-fold predictions: no scaling and no abstention."""
        return cls(
            temperature=1.0,
            threshold=0.0,
            target_precision=target_precision,
            slides=0,
            coverage=None,
            precision=None,
            ece_before=None,
            ece_after=None,
            log_loss_before=None,
            log_loss_after=None,
        )

    def low_confidence(self, confidence: float) -> str:
        """The reason why a model is not sure at this confidence; empty if it is."""
        if confidence >= self.threshold:
            return ""
        reached = self.threshold < ABSTAIN_ALWAYS
        threshold = f"the model's threshold {self.threshold:.2f}" if reached else "what this model can be sure at"
        return Reason.LOW_CONFIDENCE.because(confidence=confidence, threshold=threshold)


def apply_temperature(probabilities: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Returns softmax(ln p / T), (..., classes); T = 1 returns the probabilities unchanged.

    The ranking of the classes is preserved: ties remain ties, and the top class remains strictly on top even if T brings
    two probabilities closer together than floating point can represent.
    """
    rows = np.asarray(probabilities, dtype=np.float64)
    if temperature == 1:
        return rows
    odds = np.exp(relative_logits(rows) / temperature)
    scaled = odds / odds.sum(axis=-1, keepdims=True)
    top = scaled.max(axis=-1, keepdims=True)
    beaten = rows < rows.max(axis=-1, keepdims=True)
    return np.asarray(np.where(beaten, np.minimum(scaled, np.nextafter(top, 0)), top))


def relative_logits(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns ln p minus the row's maximum, so that the top class has 0 and no exponential overflows."""
    return np.asarray(np.log(np.maximum(rows / rows.max(axis=-1, keepdims=True), PROBABILITY_FLOOR)))


PROBABILITY_FLOOR: Final = 1e-15
