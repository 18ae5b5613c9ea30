"""`mlflow run . -e export -P mpp=0.5`: writes a model for QuPath's WSInfer extension, or as ONNX."""

from typing import TYPE_CHECKING, Any

from .command import stage_command

if TYPE_CHECKING:
    from doctogres.tracking.runs import StageResult


@stage_command("export")
def command(**parameters: Any) -> "StageResult":
    from doctogres.stages.export import export

    return export(**parameters)


if __name__ == "__main__":
    command()
