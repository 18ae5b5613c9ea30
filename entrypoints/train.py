"""`mlflow run . -e train`: trains a classifier on the patches."""

from typing import TYPE_CHECKING, Any

from .command import stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("train")
def command(**parameters: Any) -> "StageResult | None":
    from doctogres.training.processes import is_leader

    if is_leader():
        from doctogres.stages.train import train

        return train(**parameters)
    from doctogres.training.members import assist

    assist(parameters["preset"].train)
    return None


if __name__ == "__main__":
    command()
