"""Everything except the weights that a prediction depends on."""

from pydantic import BaseModel, ConfigDict

from doctogres.model.architecture import Architecture
from doctogres.model.conformal import LabelSets, NoveltyLimit
from doctogres.model.group_answer import GroupRule
from doctogres.model.temperature import Calibration
from doctogres.settings import AnswerSettings, PatchSettings
from doctogres.slides.plausibility import MaskRange


class TrainingRecord(BaseModel):
    """What a model was trained on, so that it is not evaluated on the same slides: digests only, no names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data_digest: str = ""
    pictures: tuple[str, ...] = ()  # MD5 of every picture file
    # `files.digest` of every group (a patient) of that cohort, not the name: the model may be given to others.
    groups: tuple[str, ...] = ()


class SourceCard(BaseModel):
    """One or more networks of the same architecture that see the patches in the same view."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Architecture
    view: str
    members: int  # number of networks, one per fold in an ensemble
    features: int  # per patch, before the classifier, if an attention head or the novelty needs them; else 0


class ClassifierCard(BaseModel):
    """Everything except the weights that a prediction depends on; stored in the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str  # probe or finetune
    sources: tuple[SourceCard, ...]
    classes: tuple[str, ...]  # in the order of the networks' outputs
    class_shares: tuple[float, ...]  # of the training slides
    patch: PatchSettings
    answer: AnswerSettings
    region_side: int  # median longer side of the training regions in pixels: the tile size if no mask is given
    mpp: float | None = (
        None  # microns per pixel of the training's patches before they get their size; None if not known
    )
    masks: MaskRange | None = None  # of the training slides; None if it was not recorded
    weights_sha256: str = ""  # of the weights file, filled in when it is written
    calibration: Calibration
    labels: LabelSets | None = None  # None if they were not measured
    novelty: NoveltyLimit | None = None  # None if it was not measured
    group: GroupRule | None = None  # None if the model gives no answer for a group
    seen: TrainingRecord

    @property
    def views(self) -> tuple[str, ...]:
        """What the networks see, each once."""
        return tuple(dict.fromkeys(source.view for source in self.sources))

    @property
    def networks(self) -> str:
        """The networks in words: `5 × mobilenetv2_100 on window224`."""
        return ", ".join(f"{source.members} × {source.architecture.title} on {source.view}" for source in self.sources)
