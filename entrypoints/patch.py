"""`mlflow run . -e patch`: patches from the cohort table and its slides."""

from typing import TYPE_CHECKING, Any

from .command import stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("patch")
def command(**parameters: Any) -> "StageResult":
    from doctogres.stages.patch import patch

    return patch(**parameters)


if __name__ == "__main__":
    command()
