"""What a model is made of: every backbone on every view of the patches."""

from dataclasses import dataclass
from functools import cached_property

from doctogres.errors import ParameterError
from doctogres.model.architecture import Architecture, titled
from doctogres.model.encoder import architecture_of
from doctogres.model.fusion import JOINED
from doctogres.settings import PatchSettings, Preset, TrainSettings, listed


@dataclass(frozen=True)
class Source:
    """A backbone with its weights, and the view of the patches that it sees."""

    backbone: str
    weights: str
    normalisation: str
    view: str
    stages: int = 0  # which of the backbone's are used, see `keep_stages`; 0 for all of it

    def __str__(self) -> str:
        return f"{titled(self.backbone, self.stages)} on {self.view}"

    @cached_property
    def architecture(self) -> Architecture:
        """What its networks are built from, and how their input is normalised."""
        return architecture_of(self.backbone, self.weights, self.normalisation, self.stages)

    def settings(self, train: TrainSettings) -> TrainSettings:
        """The settings of the training of this source alone."""
        return train.model_copy(update={"backbone": self.backbone, "weights": self.weights})


def chosen_views(train: TrainSettings, patch: PatchSettings) -> tuple[str, ...]:
    """The views that the model sees.

    Raises:
        ParameterError: one of them was not cut.
    """
    views = tuple(dict.fromkeys(patch.view(name) for name in listed(train.views))) or patch.views
    if missing := [view for view in views if view not in patch.views]:
        raise ParameterError(
            f"views={train.views}: {', '.join(missing)} was not cut (only {', '.join(patch.views)}); give it in patching, too, "
            "and run `patch` again"
        )
    return views


def sources_of(recipe: Preset, patch: PatchSettings) -> list[Source]:
    """Every backbone on every view.

    Args:
        recipe: the settings of the training.
        patch: how the patches were cut.

    Raises:
        ParameterError: a view was not cut, or the sources cannot be joined as `fusion` asks.
    """
    train, views = recipe.train, chosen_views(recipe.train, patch)
    if recipe.answer.fusion == JOINED and train.recipe != "probe":
        raise ParameterError(
            "fusion=features: only the probe has one head for all views and backbones; give recipe=probe"
        )
    return [
        Source(backbone, weights, train.normalisation, view, train.stages)
        for backbone, weights in train.encoders
        for view in views
    ]
