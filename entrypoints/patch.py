"""`mlflow run . -e patch`: the cohort table and its slides become patches."""

from typing import TYPE_CHECKING, Any

from entrypoints.command import PRESET, RERUN, SLIDES, stage_command, upstream

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("patch", parameters=(upstream("cohort", "clean"), SLIDES, PRESET, RERUN), sections=("patch",))
def command(**parameters: Any) -> "StageResult":
    """Cuts a patch around every lesion region of the usable slides."""
    from doctogres.stages.patch import patch

    return patch(**parameters)


if __name__ == "__main__":
    command()
