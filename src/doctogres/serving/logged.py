"""Logs a classifier as an MLflow model: code as files, weights as safetensors, no pickle."""

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Map, Object, Property, Schema

import doctogres
from doctogres.images import encode_png
from doctogres.serving.classifier import SlideClassifier

# What answering imports: the model's own environment holds this and nothing else of ours.
REQUIREMENTS: Final = (
    "mlflow", "torch", "torchvision", "timm", "safetensors", "huggingface-hub", "opencv-python-headless",
    "pillow", "numpy", "pandas", "pyarrow", "pydantic",
)  # fmt: skip


def model_signature() -> ModelSignature:
    """Picture and mask as binary columns (base64 in JSON, plain bytes in Parquet); the answer's columns."""
    box = [Property(name, DataType.long) for name in ("x", "y", "width", "height", "area")]
    patch = Object([*box, Property("label", DataType.string), Property("probabilities", Map(DataType.double))])
    return ModelSignature(
        inputs=Schema(
            [
                ColSpec(DataType.binary, "image"),
                ColSpec(DataType.binary, "mask"),
                ColSpec(DataType.string, "slide_id", required=False),
            ]
        ),
        outputs=Schema(
            [
                ColSpec(DataType.string, "slide_id"),
                ColSpec(DataType.string, "label", required=False),
                ColSpec(Map(DataType.double), "probabilities", required=False),
                ColSpec(DataType.long, "n_patches"),
                ColSpec(Array(patch), "patches"),
                ColSpec(DataType.string, "note"),
                ColSpec(DataType.string, "error", required=False),
            ]
        ),
    )


def input_example() -> pd.DataFrame:
    """A tiny drawn slide with one region, so that the model's page shows a request without showing a patient."""
    rgb = np.full((64, 64, 3), (190, 190, 188), np.uint8)
    rgb[16:48, 16:48] = (180, 120, 170)
    mask = np.zeros((64, 64), np.bool_)
    mask[20:44, 20:44] = True
    return pd.DataFrame({"image": [encode_png(rgb)], "mask": [encode_png(mask)], "slide_id": ["example"]})


def log_classifier(classifier: SlideClassifier, *, metadata: dict[str, Any]) -> str:
    """Logs the model to the active run; returns its address (`models:/m-...`)."""
    package = Path(doctogres.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        classifier.save(Path(folder) / "classifier")
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(package / "serving" / "pyfunc.py"),
            artifacts={"classifier": str(Path(folder) / "classifier")},
            code_paths=[str(package)],
            signature=model_signature(),
            input_example=input_example(),
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
            metadata=metadata,
        )
    return str(info.model_uri)
