"""`mlflow run . -e patch`: the cohort table and its slides become patches."""

from typing import TYPE_CHECKING, Any

from entrypoints.command import stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("patch")
def command(**parameters: Any) -> "StageResult":
    from doctogres.stages.patch import patch

    return patch(**parameters)


if __name__ == "__main__":
    command()
