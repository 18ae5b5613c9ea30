"""Everything but the weights that an answer depends on."""

from pydantic import BaseModel, ConfigDict

from doctogres.model.temperature import Calibration
from doctogres.settings import AnswerSettings, PatchSettings
from doctogres.slides.plausibility import MaskRange


class TrainingRecord(BaseModel):
    """What a model was trained on, so that nobody scores it on the same: digests only, no names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_digest: str = ""
    pictures: tuple[str, ...] = ()  # MD5 of every picture file
    # `files.digest` of every group (a patient) of that cohort: the model may leave the house.
    groups: tuple[str, ...] = ()


class ClassifierCard(BaseModel):
    """Everything but the weights that an answer depends on; travels inside the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str
    classes: tuple[str, ...]  # in the order of the networks' outputs
    class_shares: tuple[float, ...]  # of the training slides
    mean: tuple[float, ...]
    std: tuple[float, ...]
    patch: PatchSettings
    answer: AnswerSettings
    members: int  # networks that answer together
    features: int  # of a patch before the classifier, where an attention head reads them; else 0
    region_side: int  # median longer side of the training's regions in pixels: that of a tile where no mask is given
    masks: MaskRange | None = None  # of the training's slides; None where it was not recorded
    weights_sha256: str = ""  # of the weights' file, filled in when it is written
    calibration: Calibration
    seen: TrainingRecord
