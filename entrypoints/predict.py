"""`mlflow run . -e predict`: submission.csv for slides without labels."""

from typing import TYPE_CHECKING, Any

from .command import stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("predict")
def command(**parameters: Any) -> "StageResult":
    from doctogres.stages.predict import predict

    return predict(**parameters)


if __name__ == "__main__":
    command()
