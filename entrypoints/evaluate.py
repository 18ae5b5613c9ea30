"""`mlflow run . -e evaluate`: a model's scores on a split, with intervals."""

from typing import TYPE_CHECKING, Any

import click

from entrypoints.command import PRESET, RERUN, SEED, SLIDES, Parameter, stage_command, upstream

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult

SPLIT = Parameter(
    "split",
    "holdout",
    "holdout, test (the test slides, with test_labels.csv), or a fold that the model has not seen",
    click.STRING,
)


@stage_command(
    "evaluate",
    parameters=(upstream("model", "train"), upstream("cohort", "clean"), SPLIT, SLIDES, PRESET, SEED, RERUN),
    sections=("evaluate",),
)
def command(**parameters: Any) -> "StageResult":
    """Scores a model on slides that it has not seen, beside a null model."""
    from doctogres.stages.evaluate import evaluate

    return evaluate(**parameters)


if __name__ == "__main__":
    command()
