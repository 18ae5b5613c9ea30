"""`mlflow run . -e demo_data`: the synthetic demo cohort."""

from typing import TYPE_CHECKING, Any

from .command import stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("demo_data")
def command(**parameters: Any) -> "StageResult":
    from doctogres.stages.demo_data import demo_data

    return demo_data(**parameters)


if __name__ == "__main__":
    command()
