"""Logs a classifier as an MLflow model: code as files, weights as safetensors, no pickles."""

import platform
import tempfile
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any, Final

import mlflow

import doctogres
from doctogres.model.classifier import SlideClassifier
from doctogres.serving.contract import input_example, model_signature
from doctogres.telemetry import OFF

# What inference imports: the model's environment contains these packages and their dependencies, nothing else.
REQUIREMENTS: Final = (
    "mlflow", "torch", "torchvision", "timm", "safetensors", "huggingface-hub", "opencv-python-headless",
    "openvino", "pillow", "matplotlib", "numpy", "pandas", "pyarrow", "pydantic",
)  # fmt: skip


def log_classifier(classifier: SlideClassifier, *, metadata: dict[str, Any]) -> str:
    """Logs the model to the active run and returns its address (`models:/m-...`)."""
    package = Path(doctogres.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        classifier.save(Path(folder) / "classifier")
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(installed_versions()), encoding="utf-8")
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(package / "serving" / "pyfunc.py"),
            artifacts={"classifier": str(Path(folder) / "classifier")},
            code_paths=[str(package)],
            signature=model_signature(),
            input_example=input_example(),
            conda_env=conda_environment([*(f"{name}=={version(name)}" for name in REQUIREMENTS), f"-c {constraints}"]),
            metadata=metadata,
        )
    return str(info.model_uri)


def conda_environment(requirements: list[str]) -> dict[str, Any]:
    """The model's environment for conda, which also sets what turns usage statistics off."""
    pip = ["pip", {"pip": requirements}]
    return {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={platform.python_version()}", *pip],
        "variables": OFF,
    }


def installed_versions() -> list[str]:
    """`name==version` of everything installed here, to pin the dependencies of the requirements as well."""
    return sorted(f"{name}=={version(name)}" for name in {package.name for package in distributions()})
