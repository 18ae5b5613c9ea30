"""All that a network is built from, apart from its weights; stored in the model. Loads no torch."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Deviation = Annotated[float, Field(gt=0)]


class Architecture(BaseModel):
    """A timm architecture with its arguments, and the input that its weights expect."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str  # timm's; never a folder or a repository
    arguments: dict[str, Any] = Field(default_factory=dict)  # of timm.create_model, as JSON; layers by name
    mean: tuple[float, float, float]  # of values in 0..1
    std: tuple[Deviation, Deviation, Deviation]
    interpolation: str  # of the pictures that the weights were trained on, by timm's name
    input_size: tuple[Literal[3], int, int]  # channels, height, width of these
    normalised_by: str  # what states mean and std: a file, timm, or the setting
    stages: int = 0  # which of timm's feature stages are kept, see `keep_stages`; 0 for the whole network
    assumed: bool = False  # the weights came without mean and std, so these may not be theirs

    @property
    def title(self) -> str:
        """The name, and what of it is used: `mobilenetv2_100 (stages=-1)`."""
        return titled(self.name, self.stages)

    def __str__(self) -> str:
        """The normalisation, for a note: `mean 0.5, 0.5, 0.5, deviation 0.5, 0.5, 0.5 (config.json)`."""
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"mean {mean}, deviation {std} ({self.normalised_by})"


def titled(backbone: str, stages: int) -> str:
    """A backbone's name, and which of its stages are used if not all of it is."""
    return f"{backbone} (stages={stages})" if stages else backbone
