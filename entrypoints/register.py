"""`mlflow run . -e register`: registers an evaluated model as a new version."""

from typing import TYPE_CHECKING, Any

from entrypoints.command import stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("register")
def command(**parameters: Any) -> "StageResult":
    from doctogres.stages.register import register

    return register(**parameters)


if __name__ == "__main__":
    command()
