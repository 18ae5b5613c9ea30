"""`mlflow run . -e register`: an evaluated model becomes a version of the registered model."""

from typing import TYPE_CHECKING, Any

from entrypoints.command import FORCE, stage_command, upstream

if TYPE_CHECKING:
    from doctogres.tracking import StageResult


@stage_command("register", parameters=(upstream("evaluation", "evaluate"), FORCE))
def command(**parameters: Any) -> "StageResult":
    """Registers an evaluated model when it passes the gate, as champion or challenger."""
    from doctogres.stages.register import register

    return register(**parameters)


if __name__ == "__main__":
    command()
