"""`mlflow run . -e clean -P data=FOLDER_OR_ZIP`: an outcome for every slide, and the audit page."""

from typing import TYPE_CHECKING, Any

from .command import stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("clean")
def command(**parameters: Any) -> "StageResult":
    from doctogres.stages.clean import clean

    return clean(**parameters)


if __name__ == "__main__":
    command()
