"""`mlflow run . -e ablate`: the results ladder, a child run per row."""

from typing import TYPE_CHECKING, Any

from entrypoints.command import DATA, DECISIONS, PRESET, RERUN, SEED, stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command(
    "ablate",
    parameters=(DATA, PRESET, SEED, DECISIONS, RERUN),
    sections=("clean", "patch", "train", "tune", "answer", "evaluate", "ablate"),
)
def command(**parameters: Any) -> "StageResult":
    """Trains every row of the results ladder with several seeds and compares the rows on the same hold-out slides."""
    from doctogres.stages.ablate import ablate

    return ablate(**parameters)


if __name__ == "__main__":
    command()
