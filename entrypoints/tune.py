"""`mlflow run . -e tune`: an Optuna study on the patches."""

from typing import TYPE_CHECKING, Any

import click

from entrypoints.command import PRESET, RERUN, SEED, SLIDES, Parameter, stage_command, upstream

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult

STORAGE = Parameter(
    "storage",
    "",
    "where the study is kept: sqlite:///FILE (empty: in the workspace), or postgresql://USER@HOST/DATABASE for many workers",
    click.STRING,
)


@stage_command(
    "tune", parameters=(upstream("patches", "patch"), STORAGE, SLIDES, PRESET, SEED, RERUN), sections=("tune", "train")
)
def command(**parameters: Any) -> "StageResult":
    """Searches the recipe of the training, on folds of the training part."""
    from doctogres.stages.tune import tune

    return tune(**parameters)


if __name__ == "__main__":
    command()
