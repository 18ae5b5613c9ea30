"""The settings of each stage.

Imports nothing heavy, so that a command can check its parameters and print its help within a second.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

# Which networks are trained and which of them are kept: no single network depends on these.
ENSEMBLE_SETTINGS: Final = frozenset({"oof_folds", "repeats", "ensemble", "final"})
# Set by `trial_epochs` and `trial_folds`, or a property of the machine.
NOT_SEARCHED: Final = ENSEMBLE_SETTINGS | {"epochs", "device"}
# Of the answer's settings, those that a trial's score depends on.
SEARCHED_ANSWERS: Final = frozenset({"aggregation", "fusion", "view_weights", "tta"})


# A view of a slide: what is cut from it.
VIEW: Final = re.compile(r"regions|whole|(window|tiles)(?P<size>[0-9]{2,4})?")
VIEW_WEIGHT: Final = re.compile(rf"({VIEW.pattern}):(?P<weight>[0-9]*\.?[0-9]+)")


def listed(text: str) -> list[str]:
    """The entries of a comma-separated setting."""
    return [entry for entry in (part.strip() for part in text.split(",")) if entry]


class CleanSettings(BaseModel):
    """The settings of the cleaning."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slime: Literal["drop", "repair", "keep"] = Field(
        default="drop",
        description="what to do with a slide that has a splat: drop, repair (remove the splat from the mask) or keep",
    )
    holdout: float = Field(
        default=0.2, gt=0, lt=0.9, description="share of the slides, in whole groups, held out until evaluation"
    )
    folds: int = Field(
        default=5, ge=2, le=20, description="number of cross-validation folds into which the remaining slides are split"
    )
    folds_by: str = Field(
        default="",
        description="label column, such as site, of which every value becomes a fold of its own in place of `folds` random ones "
        "(leave-one-site-out; with oof_folds=0); sites that share a patient are left out together",
    )
    min_lesion: int = Field(
        default=200, ge=1, description="minimum lesion pixels that must remain for a repaired slide to be used"
    )
    mpp: float = Field(
        default=0.0,
        ge=0,
        le=20,
        description="microns per pixel of slides whose file and line in the table of labels say none; 0 is unknown",
    )


class PatchSettings(BaseModel):
    """How regions become patches. Stored in the model, so that serving cuts exactly as training did."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    patching: str = Field(
        "regions",
        description="what is cut, comma-separated: regions (the tight box of each region), window (the fewest "
        "squares of `window` pixels that show all lesions, with their surroundings), tiles (squares of `tile` pixels inside "
        "the mask), whole (the picture as one patch); window160 or tiles96 give a size of their own",
    )
    patch_size: int = Field(224, ge=16, le=1024, description="side length in pixels to which every patch is resized")
    window: int = Field(224, ge=16, le=4096, description="side length in pixels of a window")
    tile: int = Field(128, ge=16, le=4096, description="side length in pixels of a tile")
    min_area: int = Field(200, ge=1, description="regions with fewer mask pixels are left out")
    margin: float = Field(
        0.25,
        ge=0,
        le=4,
        description="context added on each side of a region's tight box, as a share of its longer side",
    )
    target_mpp: float = Field(
        0.0,
        ge=0,
        le=20,
        description="microns per pixel to which slides are resampled before windows, tiles and regions are cut; 0 cuts them as "
        "they are",
    )

    @field_validator("patching")
    @classmethod
    def _known(cls, patching: str) -> str:
        names = listed(patching)
        if not names or not all(VIEW.fullmatch(name) for name in names):
            raise ValueError("give regions, window, tiles or whole, or several of them separated by commas")
        if small := [name for name in names if (size := VIEW.fullmatch(name)["size"]) and not 16 <= int(size) <= 4096]:  # type: ignore[index]
            raise ValueError(f"{small[0]}: its size must lie between 16 and 4096 pixels")
        return ",".join(names)

    @property
    def views(self) -> tuple[str, ...]:
        """The views that are cut, each once, a window or tile with its size: `regions`, `window224`, `tiles128`, `whole`."""
        return tuple(dict.fromkeys(self.view(name) for name in listed(self.patching)))

    def view(self, name: str) -> str:
        """A view's full name: `window` is `window224` if `window` is 224."""
        return name + {"window": str(self.window), "tiles": str(self.tile)}.get(name, "")


NORMALISATIONS: Final = {"imagenet": (0.485, 0.456, 0.406, 0.229, 0.224, 0.225), "half": (0.5,) * 6}


def channel_statistics(normalisation: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation per channel, of values in 0..1; None if the weights' configuration has them.

    Raises:
        ValueError: names what is allowed.
    """
    if normalisation == "weights":
        return None
    try:
        values = NORMALISATIONS.get(normalisation) or tuple(map(float, normalisation.split(",")))
    except ValueError:
        values = ()
    if len(values) != 6 or not all(0 <= value <= 1 for value in values) or not all(values[3:]):
        raise ValueError("give weights, imagenet, half, or six numbers in 0..1: three means, three deviations above 0")
    return values[:3], values[3:]


class TrainSettings(BaseModel):
    """The hyperparameters of one training run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Literal["probe", "finetune"] = Field(
        "finetune",
        description="probe (a linear head fitted to the features of the frozen backbone) or finetune (the backbone is trained "
        "as well)",
    )
    backbone: str = Field(
        "convnext_tiny",
        description="any timm architecture, local-dir:FOLDER (path or address) or hf-hub:NAME (as timm saves encoders); several, "
        "comma-separated, predict together",
    )
    weights: str = Field(
        "imagenet",
        description="backbone weights: imagenet (timm's download, or the folder's or repository's own), none, or a safetensors "
        "file (path or address); comma-separated, one for each backbone, or one for all",
    )
    stages: int = Field(
        0,
        ge=-100,
        le=100,
        description="feature stages of the backbone to keep (transformers: blocks). 0: the whole backbone; 3: the first three; "
        "-1: all stages, but not the layers after the last (such as MobileNet's last convolution); -2: one stage fewer",
    )
    normalisation: str = Field(
        "weights",
        description="mean and standard deviation of the input: weights (as their configuration says), imagenet, half "
        "(0.5 and 0.5), or six numbers in 0..1: the means of red, green and blue, then the deviations",
    )
    views: str = Field(
        "", description="which of the views that `patching` cuts the model sees, comma-separated; empty for all of them"
    )
    head: Literal["logistic", "lda", "blend"] = Field(
        "logistic",
        description="the head of the probe: logistic regression on the patches, linear discriminant analysis with shrinkage on "
        "the slides' mean features, or blend (the mean of both heads' logits); all weight the classes equally",
    )
    logistic_c: float = Field(
        0.01, gt=0, le=1e6, description="inverse strength of the logistic head's L2 penalty, on standardised features"
    )
    lda_shrinkage: float = Field(
        0.5, ge=0, le=1, description="shrinkage of the covariance of the LDA head; 1 uses only its mean variance"
    )
    start: Literal["probe", "random"] = Field(
        "probe", description="first head of a fine-tuned network: the fitted probe, or random weights"
    )
    epochs: int = Field(100, ge=1, le=10_000, description="passes over the training patches")
    unfreeze_every: int = Field(
        20,
        ge=0,
        description="epochs between unfreezing steps (two blocks each); 0 trains everything from the start",
    )
    batch_size: int = Field(
        32, ge=2, le=4096, description="patches per optimizer step; at least 2, because batch norm cannot train on one"
    )
    learning_rate: float = Field(1e-4, gt=0, le=1, description="learning rate of the head (Lion)")
    layer_decay: float = Field(0.9, gt=0, le=1, description="learning-rate factor for each block further from the head")
    weight_decay: float = Field(0.01, ge=0, le=1, description="decoupled weight decay (Lion)")
    dropout: float = Field(0.3, ge=0, lt=1, description="dropout rate before the classifier")
    label_smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing of the weighted cross-entropy")
    patience: int = Field(
        25,
        ge=1,
        description="epochs without improvement in slide-level macro-F1 (on ties: validation loss) before early stopping",
    )
    augmentation: bool = Field(True, description="flips, rotations, small affine transforms, stain and colour jitter")
    mixup: float = Field(0.0, ge=0, le=10, description="MixUp alpha; 0 turns MixUp off")
    cutmix: float = Field(0.0, ge=0, le=10, description="CutMix alpha; 0 turns CutMix off")
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of the exponential moving average of the weights; 0 turns averaging off"
    )
    feature_views: int = Field(
        4,
        ge=0,
        le=64,
        description="augmented views per patch whose features are cached while the backbone is frozen; "
        "0 recomputes features in every epoch",
    )
    oof_folds: int = Field(
        1,
        ge=0,
        le=20,
        description="number of folds left out in turn, with one network trained for each; 0 means every fold",
    )
    repeats: int = Field(
        1,
        ge=1,
        le=20,
        description="number of cross-validation runs; each run after the first uses a new split into folds",
    )
    ensemble: bool = Field(
        False, description="keep all the networks as one model (mean of their probabilities) rather than only the first"
    )
    final: Literal["training", "all"] = Field(
        "training",
        description="all also logs a second model that was trained on the hold-out, too; it cannot be evaluated on it and never "
        "becomes champion by itself",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="where to train; auto uses an accelerator if one is available"
    )

    @field_validator("normalisation")
    @classmethod
    def _known(cls, normalisation: str) -> str:
        channel_statistics(normalisation)
        return normalisation

    @model_validator(mode="after")
    def _weights_for_each(self) -> "TrainSettings":
        if len(listed(self.weights)) not in (1, len(listed(self.backbone))) or not listed(self.backbone):
            raise ValueError(f"give one entry of weights for all backbones or one for each, not {self.weights!r}")
        return self

    @property
    def encoders(self) -> tuple[tuple[str, str], ...]:
        """Backbones with their weights."""
        backbones, weights = listed(self.backbone), listed(self.weights)
        return tuple(zip(backbones, weights if len(weights) > 1 else weights * len(backbones), strict=True))


# Settings that only one recipe uses; the others apply to both.
OF_RECIPE: Final[dict[str, frozenset[str]]] = {
    "probe": frozenset({"head", "logistic_c", "lda_shrinkage", "fusion"}),
    "finetune": frozenset({
        "start", "epochs", "unfreeze_every", "batch_size", "learning_rate", "layer_decay", "weight_decay", "dropout",
        "label_smoothing", "patience", "augmentation", "mixup", "cutmix", "ema", "feature_views",
    }),
}  # fmt: skip
OF_HEAD: Final[dict[str, frozenset[str]]] = {
    "logistic": frozenset({"logistic_c"}),
    "lda": frozenset({"lda_shrinkage"}),
    "blend": frozenset({"logistic_c", "lda_shrinkage"}),
}


def is_used(name: str, values: Mapping[str, Any]) -> bool:
    """Whether a recipe with these settings uses the setting `name`."""
    chosen = ((OF_RECIPE, values["recipe"]), (OF_HEAD, values["head"]))
    return all(name in owners[value] or not any(name in names for names in owners.values()) for owners, value in chosen)


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
                raise ValueError("choices must not be empty or combined with low, high or log")
            return self
        if self.low is None or self.high is None or self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError("give low < high (and low > 0 with log), or choices")
        return self

    def holds(self, value: Any) -> bool:
        """Whether a trial can have this value."""
        if self.choices is not None:
            return value in self.choices
        assert self.low is not None  # a range or choices: `_one_kind`
        assert self.high is not None
        return isinstance(value, int | float) and self.low <= value <= self.high

    def __str__(self) -> str:
        """The values as a message shows them: `0.1 to 0.5`, `one of 1, 2`."""
        if self.choices is not None:
            return f"one of {', '.join(map(str, self.choices))}"
        return f"{self.low:g} to {self.high:g}"


Aggregation = Literal[
    "mean",
    "area_mean",
    "log_mean",
    "majority",
    "max_confidence",
    "top_k_mean",
    "log_sum_exp",
    "attention",
]
AGGREGATIONS: Final[tuple[str, ...]] = get_args(Aggregation)  # each is a function in model/aggregation.py
ATTENTION: Final = "attention"  # except this one: a trained head on the patches' features


class AnswerSettings(BaseModel):
    """How patch predictions become the slide's. Stored in the model, so that serving predicts exactly as evaluation did."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    aggregation: Aggregation = Field(
        "mean",
        description="how patch probabilities are pooled per slide: mean, mean weighted by region area, normalised "
        "geometric mean, majority vote, most confident patch, mean of the highest per class, log-sum-exp (a soft maximum), "
        "or a gated-attention head on the patch features (Ilse 2018)",
    )
    fusion: Literal["probabilities", "log_probabilities", "features"] = Field(
        "probabilities",
        description="how several views or backbones are combined: mean of their probabilities, normalised geometric mean of "
        "the views' probabilities, or one head on their joined features (recipe=probe; exact with aggregation=log_mean)",
    )
    view_weights: str = Field(
        "",
        description="how much views count when their probabilities are averaged, as window:2,regions:1; 1 if not given",
    )
    tta: bool = Field(False, description="average the predictions over the eight flips and rotations of each patch")
    target_precision: float = Field(
        0.9,
        gt=0,
        le=1,
        description="target share of correct predictions: a slide whose confidence is below the threshold that reaches it "
        "out of fold is marked `abstained`",
    )
    labels_coverage: float = Field(
        0.9,
        gt=0,
        lt=1,
        description="target share of slides whose `labels` in the answer contain the true class; a higher share makes the lists longer",
    )
    novelty_quantile: float = Field(
        0.95,
        gt=0,
        lt=1,
        description="share of new slides like the training slides whose patches are to count as familiar: a slide further from "
        "the training patches than this quantile of the training slides, out of fold, is marked `abstained`",
    )

    group_answer: Literal["none", "mean", "log_probabilities", "auto"] = Field(
        "auto",
        description="the answer for all slides of a `group` (a patient) together, beside that of each slide: none, mean of the "
        "slides' probabilities, their normalised geometric mean, or auto (the better of the two rules, if its "
        "out-of-fold log loss is lower than that of the slides' own answers beyond chance)",
    )

    @field_validator("view_weights")
    @classmethod
    def _view_weights(cls, given: str) -> str:
        entries = [VIEW_WEIGHT.fullmatch(entry) for entry in listed(given)]
        if not all(entry and float(entry["weight"]) > 0 for entry in entries):
            raise ValueError("give a view and a number above 0 for each, separated by commas, as in window:2,regions:1")
        return ",".join(listed(given))

    def view_weight(self, view: str) -> float:
        """How much a view counts: `window:2` also stands for `window224`."""
        given = dict(entry.split(":") for entry in listed(self.view_weights))
        return float(given.get(view, given.get(view.rstrip("0123456789"), 1)))


def searched_field(name: str) -> FieldInfo:
    """The declaration of a setting that the study may search."""
    return {**TrainSettings.model_fields, **AnswerSettings.model_fields}[name]


def _checked(name: str, values: SearchRange) -> SearchRange:
    """The range, once its values are valid for training; choices get the setting's type (YAML reads 1e-4 as text)."""
    model = TrainSettings if name in TrainSettings.model_fields else AnswerSettings
    if values.choices is None and searched_field(name).annotation not in (int, float):
        raise ValueError(f"{name} is not a number; give choices instead of low and high")
    ends = values.choices if values.choices is not None else (values.low, values.high)
    try:
        valid = tuple(getattr(model.model_validate({name: end}), name) for end in ends)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ValueError(f"{name}={problem['input']}: {problem['msg']}") from error
    return values if values.choices is None else values.model_copy(update={"choices": valid})


HIGHEST: Final = "highest"


class TuneSettings(BaseModel):
    """The size and search space of the study."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: int = Field(20, ge=1, le=10_000, description="number of trials; the first uses the preset's own settings")
    trial_epochs: int = Field(30, ge=1, description="epochs per trial")
    trial_folds: int = Field(
        1,
        ge=0,
        le=20,
        description="folds left out in turn in each trial, whose score is the macro-F1 of all their slides; 0 means every fold",
    )
    best_trial: Literal["one_standard_error", "highest"] = Field(
        "one_standard_error",
        description="trial to keep: the one with the highest score, or (one_standard_error) the preset's own settings unless the "
        "highest score is better by more than the standard error of the difference",
    )
    space: dict[str, SearchRange] = Field(default_factory=dict, description="training setting -> range or choices")

    @field_validator("space")
    @classmethod
    def _trainable(cls, space: dict[str, SearchRange]) -> dict[str, SearchRange]:
        if unknown := set(space) - {*TrainSettings.model_fields, *SEARCHED_ANSWERS}:
            raise ValueError(f"not training settings: {', '.join(sorted(unknown))}")
        if fixed := NOT_SEARCHED & set(space):
            raise ValueError(
                f"the study cannot search {', '.join(sorted(fixed))}; set it in `train:`, or use `trial_epochs`"
            )
        return {name: _checked(name, values) for name, values in space.items()}


class EvaluateSettings(BaseModel):
    """The settings of the evaluation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resamples: int = Field(
        default=2000,
        ge=100,
        le=100_000,
        description="number of bootstrap resamples for each 95 % interval",
    )


class GateSettings(BaseModel):
    """The settings of the gate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    loss_margin: float = Field(
        0.1,
        ge=0,
        le=1,
        description="loss of macro-F1 against the champion that the 95 % interval of the paired difference must exclude",
    )
    min_recall: float = Field(0.0, ge=0, le=1, description="recall of every class that a champion must reach")
    max_model_mb: float = Field(0.0, ge=0, description="largest size of a champion's files in megabytes; 0 is no limit")
    max_latency_ms: float = Field(
        0.0,
        ge=0,
        description="longest time for one slide (95th percentile) that a champion may take on this machine; 0 is no limit",
    )


class AblateSettings(BaseModel):
    """The settings of the ladder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: int = Field(3, ge=1, le=50, description="training runs per row, each with a different seed")


class PredictSettings(BaseModel):
    """The settings of the prediction."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    overlays: int = Field(12, ge=0, le=10_000, description="number of slides for which an overlay is drawn")
    unanswered: Literal["majority", "empty", "error"] = Field(
        "majority",
        description="label in submission.csv for slides that cannot be used: majority (the most frequent class of the training "
        "slides) or empty; error refuses to write a submission",
    )


class Preset(BaseModel):
    """All settings of one run of the whole pipeline."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    clean: CleanSettings = Field(default_factory=CleanSettings)
    patch: PatchSettings = Field(default_factory=PatchSettings)
    train: TrainSettings = Field(default_factory=TrainSettings)
    tune: TuneSettings = Field(default_factory=TuneSettings)
    answer: AnswerSettings = Field(default_factory=AnswerSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)
    gate: GateSettings = Field(default_factory=GateSettings)
    ablate: AblateSettings = Field(default_factory=AblateSettings)
    predict: PredictSettings = Field(default_factory=PredictSettings)
    _given: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def given(self) -> dict[str, Any]:
        """The name of the preset and the settings given in place of its own, for the record of a run."""
        return dict(self._given)

    def __eq__(self, other: object) -> bool:
        """Presets with the same settings are equal, however they were given."""
        return isinstance(other, Preset) and self.model_dump() == other.model_dump()

    def recording(self, given: Mapping[str, Any]) -> Self:
        """The same settings, with what was given."""
        copy = self.model_copy()
        copy._given = dict(given)
        return copy
