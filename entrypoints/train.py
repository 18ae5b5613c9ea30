"""`mlflow run . -e train`: a classifier from the patches."""

from typing import TYPE_CHECKING, Any

from entrypoints.command import PRESET, RERUN, SEED, SLIDES, stage_command, upstream

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command(
    "train",
    parameters=(upstream("patches", "patch"), upstream("params", "tune", default="none"), SLIDES, PRESET, SEED, RERUN),
    sections=("train", "answer", "evaluate"),
)
def command(**parameters: Any) -> "StageResult | None":
    """Trains the patch classifier and logs it as a model that answers for whole slides."""
    from doctogres.stages.train import follow, train
    from doctogres.training.processes import is_leader

    if is_leader():
        return train(**parameters)
    follow(**parameters)
    return None


if __name__ == "__main__":
    command()
