"""`mlflow run . -e clean -P data=FOLDER_OR_ZIP`: an outcome for every slide, and the audit."""

from typing import TYPE_CHECKING, Any

from entrypoints.command import DATA, DECISIONS, PRESET, RERUN, SEED, STRICT, stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("clean", parameters=(DATA, PRESET, SEED, DECISIONS, RERUN, STRICT), sections=("clean",))
def command(**parameters: Any) -> "StageResult":
    """Checks every slide of the cohort and splits the usable ones into hold-out and folds."""
    from doctogres.stages.clean import clean

    return clean(**parameters)


if __name__ == "__main__":
    command()
