"""`mlflow run . -e promote -P version=3 -P reason="..."`: makes a version champion, also to roll back."""

from typing import TYPE_CHECKING, Any

from .command import stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("promote")
def command(**parameters: Any) -> "StageResult":
    from doctogres.stages.promote import promote

    return promote(**parameters)


if __name__ == "__main__":
    command()
