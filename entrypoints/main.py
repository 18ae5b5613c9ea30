"""`mlflow run . -P data=FOLDER_OR_ZIP -P preset=challenge`: all stages, in one process, as nested runs."""

from typing import TYPE_CHECKING, Any

from .command import stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("main")
def command(**parameters: Any) -> "StageResult":
    from doctogres.stages.main import run_all

    return run_all(**parameters)


if __name__ == "__main__":
    command()
