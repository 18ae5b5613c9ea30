"""What steers each stage, and the presets: a YAML in the package holds every setting; single values are overridden by name.

Imports nothing heavy, so that a command can check its parameters and print its help within a second.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from doctogres.errors import ParameterError

PRESETS: Final = ("demo", "challenge")


class CleanSettings(BaseModel):
    """The parameters of the clean stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slime: Literal["drop", "repair", "keep"] = Field(
        default="drop",
        description="What to do with a slide that has a splat: drop, repair (cut it out of the mask) or keep.",
    )
    holdout: float = Field(
        default=0.2, gt=0, lt=0.9, description="Share of the slides, in whole groups, never seen before evaluation."
    )
    folds: int = Field(default=5, ge=2, le=20, description="Number of folds the training part is divided into.")
    min_lesion: int = Field(
        default=200, ge=1, description="Pixels of lesion that a repaired slide must have left to be kept."
    )


class PatchSettings(BaseModel):
    """How regions become patches. Travels inside the model, so that serving cuts as training did."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patching: Literal["regions", "whole"] = Field(
        "regions", description="one patch per lesion region, or the whole picture as one patch"
    )
    patch_size: int = Field(224, ge=16, le=1024, description="side in pixels to which every patch is resized")
    min_area: int = Field(200, ge=1, description="regions of fewer mask pixels are left out")
    margin: float = Field(
        0.25, ge=0, le=4, description="tissue kept around a region, as a share of its longer side, on each side"
    )


class TrainSettings(BaseModel):
    """The recipe of one training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backbone: str = Field("convnext_tiny", description="any timm architecture")
    weights: str = Field(
        "imagenet", description="backbone weights: imagenet (timm's download), none, or a safetensors file"
    )
    epochs: int = Field(100, ge=1, le=10_000, description="passes over the training patches")
    unfreeze_every: int = Field(
        20,
        ge=0,
        description="epochs between two openings of two more backbone blocks; 0 trains everything from the start",
    )
    batch_size: int = Field(32, ge=1, le=4096, description="patches per optimizer step")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="learning rate of the head (Lion)")
    layer_decay: float = Field(
        0.9, gt=0, le=1, description="factor on the learning rate for every block further from the head"
    )
    weight_decay: float = Field(0.01, ge=0, le=1, description="decoupled weight decay (Lion)")
    dropout: float = Field(0.3, ge=0, lt=1, description="dropout before the classifier")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing of the weighted cross-entropy")
    patience: int = Field(
        25,
        ge=1,
        description="epochs without a better slide-level macro-F1 (or, at the same, validation loss) after which training stops",
    )
    augmentation: bool = Field(True, description="flips, turns, small affine, stain and colour jitter on every batch")
    oof_folds: int = Field(
        1, ge=1, le=20, description="folds left out in turn for out-of-fold predictions; the first one's model is kept"
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="where to train; auto takes an accelerator when there is one"
    )


class SearchRange(BaseModel):
    """The values that one setting may take in the study: a numeric range or a list of choices."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[float | int | bool | str, ...] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "SearchRange":
        if self.choices is not None:
            if not self.choices or self.low is not None or self.high is not None or self.log:
                raise ValueError("choices must not be empty and stand alone, without low, high or log")
            return self
        if self.low is None or self.high is None or self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError("give low < high (and low > 0 with log), or choices")
        return self


class TuneSettings(BaseModel):
    """The size and the search space of the study."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: int = Field(20, ge=1, le=10_000, description="trials of the study; the first is the preset's own recipe")
    trial_epochs: int = Field(30, ge=1, description="epochs of one trial")
    space: dict[str, SearchRange] = Field(default_factory=dict, description="training setting -> range or choices")

    @model_validator(mode="after")
    def _known_settings(self) -> "TuneSettings":
        if unknown := set(self.space) - set(TrainSettings.model_fields):
            raise ValueError(f"not training settings: {', '.join(sorted(unknown))}")
        return self


class EvaluateSettings(BaseModel):
    """The evaluation's parameters; each description is the option's help text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    aggregation: Literal["mean", "area_mean", "log_mean"] = Field(
        default="mean",
        description="How a slide's patch probabilities become one: their mean, the mean weighted by region area, "
        "or the normalised geometric mean.",
    )
    resamples: int = Field(
        default=2000,
        ge=100,
        le=100_000,
        description="How many bootstrap resamples stand behind every 95 % interval.",
    )


class PredictSettings(BaseModel):
    """What a prediction leaves beside the answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    overlays: int = Field(12, ge=0, le=10_000, description="slides of which an overlay is drawn")


class Preset(BaseModel):
    """All settings of one run of the whole flow."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clean: CleanSettings
    patch: PatchSettings
    train: TrainSettings
    tune: TuneSettings
    evaluate: EvaluateSettings
    predict: PredictSettings


def sections_of(name: str) -> list[str]:
    """The sections of a preset that hold a setting of this name (one: names are unique, a test says so)."""
    return [
        section
        for section, field in Preset.model_fields.items()
        if isinstance(field.annotation, type) and name in field.annotation.model_fields
    ]


def load_preset(name: str, overrides: Mapping[str, Any] | None = None) -> Preset:
    """The preset with some of its settings replaced.

    Args:
        name: one of `PRESETS`.
        overrides: setting name -> value (text is parsed as the setting's type).

    Raises:
        ParameterError: the preset or a setting is unknown, or a value is not allowed; the message says what is.
    """
    if name not in PRESETS:
        raise ParameterError(f"preset={name}: there is no such preset; choose one of {', '.join(PRESETS)}")
    content = yaml.safe_load(files("doctogres").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8"))
    for setting, value in (overrides or {}).items():
        sections = sections_of(setting)
        if not sections:
            raise ParameterError(f"{setting}={value}: there is no such setting")
        content[sections[0]][setting] = value
    try:
        return Preset.model_validate(content)
    except ValidationError as error:
        problems = [f"{problem['loc'][-1]}={problem.get('input')}: {problem['msg']}" for problem in error.errors()]
        raise ParameterError("; ".join(problems)) from error


def replaced(preset: Preset, section: str, values: Mapping[str, Any]) -> Preset:
    """The preset with validated new values in one section (the tuned parameters, say)."""
    model: BaseModel = getattr(preset, section)
    try:
        changed = type(model).model_validate({**model.model_dump(), **values})
    except ValidationError as error:
        problems = [f"{problem['loc'][-1]}={problem.get('input')}: {problem['msg']}" for problem in error.errors()]
        raise ParameterError(f"{section}: " + "; ".join(problems)) from error
    return preset.model_copy(update={section: changed})
