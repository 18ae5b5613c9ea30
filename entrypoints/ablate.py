"""`mlflow run . -e ablate`: the ablation ladder, with a child run per row."""

from typing import TYPE_CHECKING, Any

from .command import stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("ablate")
def command(**parameters: Any) -> "StageResult":
    from doctogres.stages.ablate import ablate

    return ablate(**parameters)


if __name__ == "__main__":
    command()
