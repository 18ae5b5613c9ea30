"""`mlflow run . -e init -P data=FOLDER`: looks at a folder of slides and writes cohort.csv."""

from typing import TYPE_CHECKING, Any

from .command import stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("init")
def command(**parameters: Any) -> "StageResult":
    from doctogres.stages.init import init

    return init(**parameters)


if __name__ == "__main__":
    command()
