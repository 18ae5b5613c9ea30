"""`mlflow run . -e demo_data`: the synthetic demo cohort."""

from typing import TYPE_CHECKING, Any

import click

from entrypoints.command import RERUN, SEED, Parameter, stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult

TARGET = Parameter("target", "data/demo", "folder that the cohort is written to", click.STRING)
SIZE = Parameter("size", 100, "slides in all, training and test", click.IntRange(12, 100_000))


@stage_command("demo_data", parameters=(TARGET, SIZE, SEED, RERUN))
def command(**parameters: Any) -> "StageResult":
    """Makes the synthetic demo cohort."""
    from doctogres.stages.demo_data import demo_data

    return demo_data(**parameters)


if __name__ == "__main__":
    command()
