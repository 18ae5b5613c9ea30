"""`mlflow run . -e monitor -P answers=FOLDER`: compares the slides of an answer log with those of the training."""

from typing import TYPE_CHECKING, Any

from .command import stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("monitor")
def command(**parameters: Any) -> "StageResult":
    from doctogres.stages.monitor import monitor

    return monitor(**parameters)


if __name__ == "__main__":
    command()
