"""What the served model takes and gives: columns, parameters, limits, and the sentences of its refusals.

`docs/serving.md` is this module for people.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.types import ParamSchema, ParamSpec
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Map, Object, Property, Schema
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from doctogres.errors import DoctogresError
from doctogres.slides.images import encode_png, read_rgb
from doctogres.slides.limits import limit_from_environment
from doctogres.slides.masks import read_with_mask

MAX_SLIDES_VARIABLE: Final = "DOCTOGRES_MAX_SLIDES"
DEFAULT_MAX_SLIDES: Final = 1000
LONGEST_SLIDE_ID: Final = 200  # characters, because errors repeat it


class RequestError(MlflowException):
    """A request that is refused, by default with HTTP status 400, with one sentence and nothing of the request in it.

    MLflow's scoring server writes the request's data in front of the message of any error; the answer is therefore
    made of the sentence as it was given.
    """

    def __init__(self, sentence: str, error_code: int = BAD_REQUEST):
        super().__init__(sentence, error_code=error_code)
        self.sentence = sentence

    def serialize_as_json(self) -> str:
        return json.dumps({"error_code": self.error_code, "message": self.sentence})


class Parameters(BaseModel):
    """The parameters of a request; a None is the model's own setting."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    overlay: bool = False
    tta: bool | None = None
    on_error: Literal["raise", "report"] = "raise"
    min_area: int | None = Field(None, ge=1)

    @classmethod
    def of(cls, params: Mapping[str, Any] | None) -> "Parameters":
        """Checks what MLflow hands over; anything else is a RequestError that names the parameter."""
        try:
            return cls.model_validate(dict(params or {}))
        except ValidationError as error:
            problem = error.errors()[0]
            raise RequestError(f"params: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error


def model_signature() -> ModelSignature:
    """The columns and parameters, for the model's page and for Spark.

    Inputs are declared optional and of any type, so that this module's checks speak and not MLflow's: those name no
    slide, show a part of the data, refuse a null among the masks, and read as base64 what is none.
    """
    box = [Property(name, DataType.long) for name in ("x", "y", "width", "height", "area")]
    patch = Object([*box, Property("label", DataType.string), Property("probabilities", Map(DataType.double))])
    anything = AnyType()  # type: ignore[no-untyped-call]
    return ModelSignature(
        inputs=Schema([ColSpec(anything, name, required=False) for name in ("image", "mask", "slide_id")]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "slide_id"),
                ColSpec(DataType.string, "label", required=False),
                ColSpec(DataType.boolean, "abstained"),
                ColSpec(DataType.double, "confidence", required=False),
                ColSpec(Map(DataType.double), "probabilities"),
                ColSpec(DataType.long, "n_patches"),
                ColSpec(DataType.long, "n_dropped"),
                ColSpec(DataType.string, "mask_source", required=False),
                ColSpec(Array(patch), "patches"),
                ColSpec(DataType.string, "overlay", required=False),  # base64: MLflow's spark_udf takes no binary here
                ColSpec(DataType.string, "model_version"),
                ColSpec(Array(DataType.string), "reasons"),
                ColSpec(Array(DataType.string), "warnings"),
                ColSpec(DataType.string, "error", required=False),
            ]
        ),
        params=ParamSchema(
            [
                ParamSpec("overlay", DataType.boolean, False),
                ParamSpec("tta", DataType.boolean, None),
                ParamSpec("on_error", DataType.string, "raise"),
                ParamSpec("min_area", DataType.long, None),
            ]
        ),
    )


def input_example() -> pd.DataFrame:
    """A tiny drawn slide with one region, as base64, so that the model's page shows a request without a patient."""
    rgb = np.full((64, 64, 3), (190, 190, 188), np.uint8)
    rgb[16:48, 16:48] = (180, 120, 170)
    mask = np.zeros((64, 64), np.bool_)
    mask[20:44, 20:44] = True
    files = {name: base64.b64encode(encode_png(array)).decode() for name, array in (("image", rgb), ("mask", mask))}
    return pd.DataFrame([{**files, "slide_id": "example"}])


@dataclass(frozen=True)
class RequestedSlide:
    """A row of a request, not decoded yet: files as bytes or base64."""

    slide_id: str
    image: Any
    mask: Any

    def read(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_] | None]:
        """Picture and mask (None where the request has none), of the same size.

        Raises:
            DoctogresError: naming slide and field. Sizes are compared before anything is decoded.
        """
        name, mask_name = f"{self.slide_id} (image)", f"{self.slide_id} (mask)"
        image = _file(self.image, name)
        if _missing(self.mask):
            return read_rgb(image, name=name), None
        return read_with_mask(image, _file(self.mask, mask_name), name=name, mask_name=mask_name)


def requested_slides(table: pd.DataFrame) -> list[RequestedSlide]:
    """The slides of a request, unread.

    Raises:
        RequestError: there are none, too many, or a slide_id that cannot be one.
    """
    if table.empty or "image" not in table:
        raise RequestError(
            "the request holds no slide: give rows with a column image (the picture's file, base64 in JSON, bytes in "
            "Parquet), and where you have them mask and slide_id"
        )
    if len(table) > (limit := max_slides()):
        raise RequestError(
            f"the request holds {len(table)} slides, more than the limit of {limit}; send them in several requests, or "
            f"raise the environment variable {MAX_SLIDES_VARIABLE} where the model runs"
        )
    return [
        RequestedSlide(_slide_id(row.get("slide_id"), index), row["image"], row.get("mask"))
        for index, row in enumerate(table.to_dict("records"))
    ]


def max_slides() -> int:
    """The number of slides above which a request is refused, from the environment or the default."""
    return limit_from_environment(MAX_SLIDES_VARIABLE, DEFAULT_MAX_SLIDES, "slides, for example 5000")


def _slide_id(given: Any, index: int) -> str:
    if _missing(given):
        return f"slide-{index}"
    text = str(given)
    # A whole number comes out of pandas as a float, rounded, where another slide of the request has none.
    if not isinstance(given, str | int) or len(text) > LONGEST_SLIDE_ID or not text.isprintable():
        raise RequestError(
            f"slide-{index} (slide_id) is not a name; give text of at most {LONGEST_SLIDE_ID} printable characters"
        )
    return text


def _missing(value: Any) -> bool:
    return value is None or (not isinstance(value, list | dict) and (pd.isna(value) is True or value in ("", b"")))


def _file(value: Any, name: str) -> bytes:
    """The bytes of a file given as bytes or as base64 text."""
    if _missing(value):
        raise DoctogresError(f"{name} is missing; give the file's content, base64 in JSON or bytes in Parquet")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise DoctogresError(f"{name} is not a file; give its content, base64 in JSON or bytes in Parquet")
    try:
        return _decoded(value)
    except ValueError as error:
        raise DoctogresError(f"{name} is not base64; encode the whole file, without a prefix such as data:") from error


def _decoded(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # perhaps only for its line breaks, which MLflow's own encoder makes
        return binascii.a2b_base64("".join(text.split()), strict_mode=True)
