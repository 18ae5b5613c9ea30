"""`mlflow run . -e tune`: an Optuna study of the training settings."""

from typing import TYPE_CHECKING, Any

from .command import stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("tune")
def command(**parameters: Any) -> "StageResult":
    from doctogres.stages.tune import tune

    return tune(**parameters)


if __name__ == "__main__":
    command()
