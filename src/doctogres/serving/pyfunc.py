"""The MLflow model, logged from this file (models-from-code): slides in, a row of answers per slide out."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from doctogres import images
from doctogres.errors import DoctogresError
from doctogres.serving.classifier import SlideAnswer, SlideClassifier


class SlideModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """Answers for whole slides: picture and mask as encoded files (PNG, JPEG, TIFF), a row per slide.

    A slide that cannot be used gets a row with its `error` and no label; when that is so for every slide of a request,
    the request fails with status 400 and the errors.
    """

    def load_context(self, context: Any) -> None:
        self.classifier = SlideClassifier.load(Path(context.artifacts["classifier"]))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """A row per slide.

        Args:
            context: MLflow's.
            model_input: columns `image` and `mask` (encoded files as bytes) and, where wanted, `slide_id`.
            params: none are known.

        Returns:
            `slide_id`, `label`, `probabilities` (class -> probability), `n_patches`, `patches` (a row per classified
            region with its box in pixels, area, label and probabilities), `note`, `error`.
        """
        rows = [self._answer(index, row) for index, row in enumerate(model_input.to_dict("records"))]
        if rows and all(row["error"] for row in rows):
            raise MlflowException("; ".join(str(row["error"]) for row in rows), error_code=INVALID_PARAMETER_VALUE)
        return rows  # a table would turn None into NaN, which JSON does not have

    def _answer(self, index: int, row: Any) -> dict[str, Any]:
        given = row.get("slide_id")  # NaN where other slides of the request have one
        slide_id = given if isinstance(given, str) and given else f"slide-{index}"
        try:
            rgb = images.read_rgb(row["image"], name=f"{slide_id} (image)")
            mask = images.read_mask(row["mask"], name=f"{slide_id} (mask)")
            return self._record(slide_id, self.classifier.classify(rgb, mask))
        except DoctogresError as error:
            message = str(error) if str(slide_id) in str(error) else f"{slide_id}: {error}"
            empty: dict[str, Any] = {"label": None, "probabilities": None, "n_patches": 0, "patches": [], "note": ""}
            return {"slide_id": slide_id, **empty, "error": message}

    def _record(self, slide_id: str, answer: SlideAnswer) -> dict[str, Any]:
        classes = self.classifier.card.classes
        boxes = answer.patches.drop(columns=list(classes)).to_dict("records")
        shares = answer.patches[list(classes)].to_dict("records")
        return {
            "slide_id": slide_id,
            "label": answer.label,
            "probabilities": dict(zip(classes, answer.probabilities.tolist(), strict=True)),
            "n_patches": len(answer.patches),
            "patches": [{**box, "probabilities": share} for box, share in zip(boxes, shares, strict=True)],
            "note": answer.note,
            "error": None,
        }


mlflow.models.set_model(SlideModel())
