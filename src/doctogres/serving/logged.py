"""Logs a classifier as an MLflow model: code as files, weights as safetensors, no pickles."""

import platform
import tempfile
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any, Final

import mlflow

import doctogres
from doctogres.model.card import ClassifierCard
from doctogres.model.classifier import SlideClassifier
from doctogres.names import artifact_name
from doctogres.serving.contract import input_example, model_signature
from doctogres.telemetry import OFF

# What inference imports: the model's environment contains these packages and their dependencies, nothing else.
REQUIREMENTS: Final = (
    "mlflow", "torch", "torchvision", "timm", "safetensors", "huggingface-hub", "fsspec", "opencv-python-headless",
    "openvino", "pillow", "matplotlib", "numpy", "pandas", "prometheus-client", "psutil", "pyarrow", "pydantic", "shapely",
)  # fmt: skip

WHERE_INSTALLED: Final = ("openslide-python", "openslide-bin")  # a model reads scanner files where its training could

# `log_model` copies the metrics that the run has at this step to the model, and later ones of this step, too: by default
# those of the first epoch. At a step that no metric has, a model gets only the metrics logged to it on purpose.
STEP: Final = -1


def model_name(card: ClassifierCard, *, holdout: bool = False) -> str:
    """What a logged model is called: `doctogres-convnext_tiny`, with `-probe` or `-with_holdout` where that is so."""
    backbones = dict.fromkeys(source.architecture.name for source in card.sources)
    words = ["doctogres", *backbones, *["probe"] * (card.recipe == "probe"), *["with_holdout"] * holdout]
    return artifact_name("-".join(words).replace(".", "_"))  # MLflow refuses a dot


def log_classifier(classifier: SlideClassifier, *, metadata: dict[str, Any], holdout: bool = False) -> str:
    """Logs the model to the active run and returns its address (`models:/m-...`).

    Args:
        classifier: the model.
        metadata: stored with it.
        holdout: whether it was trained on the hold-out, too; its name says so.
    """
    package = Path(doctogres.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        classifier.save(Path(folder) / "classifier")
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(installed_versions()), encoding="utf-8")
        info = mlflow.pyfunc.log_model(
            name=model_name(classifier.card, holdout=holdout),
            step=STEP,
            python_model=str(package / "serving" / "pyfunc.py"),
            artifacts={"classifier": str(Path(folder) / "classifier")},
            code_paths=[str(package)],
            signature=model_signature(),
            input_example=input_example(),
            conda_env=conda_environment([*required_versions(), f"-c {constraints}"]),
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


def required_versions() -> list[str]:
    """`name==version` of what the model's environment contains."""
    installed = {package.name for package in distributions()}
    return [f"{name}=={version(name)}" for name in (*REQUIREMENTS, *sorted(installed.intersection(WHERE_INSTALLED)))]


def installed_versions() -> list[str]:
    """`name==version` of everything installed here, to pin the dependencies of the requirements as well."""
    return sorted(f"{name}=={version(name)}" for name in {package.name for package in distributions()})
