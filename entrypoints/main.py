"""`mlflow run . -P data=FOLDER_OR_ZIP -P preset=challenge`: all stages, in one process, as nested runs."""

from typing import TYPE_CHECKING, Any

from entrypoints.command import DATA, DECISIONS, PRESET, RERUN, SEED, STRICT, stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command(
    "main",
    parameters=(DATA, PRESET, SEED, DECISIONS, RERUN, STRICT),
    sections=("clean", "patch", "train", "tune", "answer", "evaluate", "gate", "predict"),
)
def command(**parameters: Any) -> "StageResult":
    """Cleans, cuts, tunes, trains, evaluates, registers and predicts."""
    from doctogres.stages.main import run_all

    return run_all(**parameters)


if __name__ == "__main__":
    command()
