"""`mlflow run . -e evaluate`: a model's scores on a split, with confidence intervals."""

from typing import TYPE_CHECKING, Any

from .command import stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("evaluate")
def command(**parameters: Any) -> "StageResult":
    from doctogres.stages.evaluate import evaluate

    return evaluate(**parameters)


if __name__ == "__main__":
    command()
