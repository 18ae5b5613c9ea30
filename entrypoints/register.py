"""`mlflow run . -e register`: an evaluated model becomes a version of the registered model."""

from typing import TYPE_CHECKING, Any

import click

from entrypoints.command import PRESET, RERUN, SEED, SLIDES, Parameter, stage_command, upstream

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


PROMOTE = Parameter(
    "promote",
    "auto",
    "auto (the gate decides) or force (champion whatever the gate says, which leaves its mark)",
    click.Choice(["auto", "force"]),
)


@stage_command(
    "register",
    parameters=(upstream("evaluation", "evaluate"), PROMOTE, SLIDES, PRESET, SEED, RERUN),
    sections=("gate",),
)
def command(**parameters: Any) -> "StageResult":
    """Registers an evaluated model when it passes the gate, as champion or challenger."""
    from doctogres.stages.register import register

    return register(**parameters)


if __name__ == "__main__":
    command()
