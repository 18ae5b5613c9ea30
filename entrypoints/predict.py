"""`mlflow run . -e predict`: submission.csv for slides without labels."""

from typing import TYPE_CHECKING, Any

import click

from entrypoints.command import DATA, PRESET, RERUN, STRICT, Parameter, stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult

MODEL = Parameter(
    "model", "models:/doctogres@champion", "a models:/ or runs:/ address, a run id of `train`, or latest", click.STRING
)
OUTPUT = Parameter(
    "output", "submission.csv", "where a copy of the submission is written; empty: nowhere", click.STRING
)


@stage_command("predict", parameters=(DATA, MODEL, OUTPUT, PRESET, RERUN, STRICT), sections=("predict",))
def command(**parameters: Any) -> "StageResult":
    """Classifies slides that have no labels."""
    from doctogres.stages.predict import predict

    return predict(**parameters)


if __name__ == "__main__":
    command()
