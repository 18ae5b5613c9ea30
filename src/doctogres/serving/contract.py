"""The contract of the served model: columns, parameters, limits and error messages.

`docs/serving.md` describes it for users.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.protos.databricks_pb2 import BAD_REQUEST
from mlflow.types import ParamSchema, ParamSpec
from mlflow.types.schema import AnyType, Array, ColSpec, DataType, Map, Object, Property, Schema
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from doctogres.errors import DoctogresError, ParameterError
from doctogres.slides.images import encode_png
from doctogres.slides.limits import limit_from_environment
from doctogres.slides.masks import read_with_mask
from doctogres.slides.opening import open_slide
from doctogres.slides.reasons import Reason
from doctogres.slides.resolution import LEAST_MPP, MOST_MPP
from doctogres.slides.source import SlideSource

MAX_SLIDES_VARIABLE: Final = "DOCTOGRES_MAX_SLIDES"
DEFAULT_MAX_SLIDES: Final = 1000
LONGEST_NAME: Final = 200  # characters of a slide_id or group, because error messages repeat them


class RequestError(MlflowException):
    """A refused request, by default with HTTP status 400; the message is one sentence without data from the request.

    MLflow's scoring server prepends the request's data to the message of any error, so the response is built from the
    original sentence. `kind` is a word for the operator, who sees no message: docs/operations.md lists the kinds.
    """

    def __init__(self, sentence: str, error_code: int = BAD_REQUEST, *, kind: str):
        super().__init__(sentence, error_code=error_code)
        self.sentence, self.kind = sentence, kind

    def serialize_as_json(self) -> str:
        return json.dumps({"error_code": self.error_code, "message": self.sentence})


class FieldError(DoctogresError):
    """A column of a request holds no file at all."""

    code: ClassVar[str] = "field"


class Parameters(BaseModel):
    """The parameters of a request; None means the model's own setting."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    overlay: bool = False
    tta: bool | None = None
    on_error: Literal["raise", "report"] = "raise"
    identity: bool = False
    min_area: int | None = Field(None, ge=1)
    annotations: str = ""
    geojson: bool = False
    mpp: float | None = Field(None, ge=LEAST_MPP, le=MOST_MPP)

    @classmethod
    def of(cls, params: Mapping[str, Any] | None) -> "Parameters":
        """Validates the parameters that MLflow passes on; a RequestError names an invalid one."""
        try:
            return cls.model_validate(dict(params or {}))
        except ValidationError as error:
            problem = error.errors()[0]
            sentence = f"params: {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            raise RequestError(sentence, kind=ParameterError.code) from error


def model_signature() -> ModelSignature:
    """The columns and parameters, for the model's page and for Spark.

    Inputs are declared optional and of any type, so that they are checked here and not by MLflow. MLflow's checks do not
    name the slide, reveal part of the data, reject null masks, and decode text as base64 even if it is not.
    """
    box = [Property(name, DataType.long) for name in ("x", "y", "width", "height", "area")]
    novelty = Property("novelty", DataType.double, required=False)
    patch = Object([*box, Property("label", DataType.string), Property("probabilities", Map(DataType.double)), novelty])
    anything = AnyType()  # type: ignore[no-untyped-call]
    return ModelSignature(
        inputs=Schema([ColSpec(anything, name, required=False) for name in ("image", "mask", "slide_id", "group")]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "slide_id"),
                ColSpec(DataType.string, "label", required=False),
                ColSpec(DataType.boolean, "abstained"),
                ColSpec(DataType.double, "confidence", required=False),
                ColSpec(Map(DataType.double), "probabilities"),
                ColSpec(Array(DataType.string), "labels"),
                ColSpec(DataType.boolean, "labels_valid"),
                ColSpec(DataType.double, "novelty", required=False),
                ColSpec(DataType.long, "n_patches"),
                ColSpec(DataType.long, "n_dropped"),
                ColSpec(DataType.string, "mask_source", required=False),
                ColSpec(Array(patch), "patches"),
                ColSpec(
                    DataType.string, "overlay", required=False
                ),  # base64: MLflow's spark_udf does not support binary here
                ColSpec(DataType.string, "geojson", required=False),
                ColSpec(DataType.string, "model_version"),
                ColSpec(DataType.string, "model_id"),
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
                ParamSpec("identity", DataType.boolean, False),
                ParamSpec("annotations", DataType.string, ""),
                ParamSpec("mpp", DataType.double, None),
                ParamSpec("geojson", DataType.boolean, False),
            ]
        ),
    )


def input_example() -> pd.DataFrame:
    """A tiny synthetic slide with one region, as base64: an example request without patient data."""
    rgb = np.full((64, 64, 3), (190, 190, 188), np.uint8)
    rgb[16:48, 16:48] = (180, 120, 170)
    mask = np.zeros((64, 64), np.bool_)
    mask[20:44, 20:44] = True
    files = {name: base64.b64encode(encode_png(array)).decode() for name, array in (("image", rgb), ("mask", mask))}
    return pd.DataFrame([{**files, "slide_id": "example"}])


@dataclass(frozen=True)
class RequestedSlide:
    """A row of a request, not yet decoded: files as bytes or base64; and which outlines of the mask are lesions."""

    slide_id: str
    image: Any
    mask: Any
    group: str = ""
    annotations: str = ""
    mpp: float | None = None  # of a slide whose file says none

    @property
    def size(self) -> int:
        """About the bytes of the files."""
        return sum(len(file) for file in (self.image, self.mask) if isinstance(file, str | bytes))

    def read(self) -> tuple[SlideSource, npt.NDArray[np.bool_] | None, str]:
        """Decodes the image and the mask (None if not given), and a note on the two.

        Raises:
            DoctogresError: names the slide and the field. Sizes are compared before anything is decoded.
        """
        return self.decoded(*self.files())

    def files(self) -> tuple[bytes, bytes | None]:
        """The content of the image file and of the mask file, if there is one.

        Raises:
            FieldError: names the slide and the field.
        """
        image = _file(self.image, self._image_name)
        return image, None if _missing(self.mask) else _file(self.mask, self._mask_name)

    def decoded(self, image: bytes, mask: bytes | None) -> tuple[SlideSource, npt.NDArray[np.bool_] | None, str]:
        """What `read` returns, from the `files`."""
        if mask is None:
            return open_slide(image, name=self._image_name).unless_known(self.mpp), None, ""
        slide = read_with_mask(
            image, mask, name=self._image_name, mask_name=self._mask_name, annotations=self.annotations
        )
        return slide._replace(picture=slide.picture.unless_known(self.mpp))

    def kind_of(self, error: DoctogresError) -> str:
        """The kind of refusal; a mask that cannot be read has the same error as a picture."""
        unreadable_mask = error.code == Reason.UNREADABLE_IMAGE and str(error).startswith(self._mask_name)
        return str(Reason.UNREADABLE_MASK if unreadable_mask else error.code)

    def named(self, error: DoctogresError) -> DoctogresError:
        """The error with the slide's name before its message, unless that begins with it."""
        return error if str(error).startswith(f"{self.slide_id} (") else DoctogresError(f"{self.slide_id}: {error}")

    def without_name(self, sentence: str) -> str:
        """A sentence about the slide, without its name."""
        return sentence.replace(self._image_name, "the image").replace(self._mask_name, "the mask")

    @property
    def _image_name(self) -> str:
        return f"{self.slide_id} (image)"

    @property
    def _mask_name(self) -> str:
        return f"{self.slide_id} (mask)"


def requested_slides(table: pd.DataFrame, annotations: str = "", mpp: float | None = None) -> list[RequestedSlide]:
    """The slides of a request, not yet decoded.

    Args:
        table: the rows of the request.
        annotations: which outlines are lesions, where masks are GeoJSON.
        mpp: microns per pixel of slides whose files say none.

    Raises:
        RequestError: no slides, too many slides, or an invalid slide_id or group.
    """
    if table.empty or "image" not in table:
        raise RequestError(
            "the request contains no slides: give rows with a column image (the image file, as base64 in JSON or bytes in "
            "Parquet), and optionally mask, slide_id and group",
            kind="no_slides",
        )
    if len(table) > (limit := max_slides()):
        raise RequestError(
            f"the request contains {len(table)} slides, more than the limit of {limit}; split it into several requests, or "
            f"raise the environment variable {MAX_SLIDES_VARIABLE} on the server",
            kind="too_many_slides",
        )
    return [
        RequestedSlide(
            _name(row.get("slide_id"), index, "slide_id") or f"slide-{index}",
            row["image"],
            row.get("mask"),
            _name(row.get("group"), index, "group"),
            annotations,
            mpp,
        )
        for index, row in enumerate(table.to_dict("records"))
    ]


def max_slides() -> int:
    """The maximum number of slides in a request, from the environment or the default."""
    return limit_from_environment(MAX_SLIDES_VARIABLE, DEFAULT_MAX_SLIDES, "slides, for example 5000")


def _name(given: Any, index: int, column: str) -> str:
    """The name in a column; empty where there is none."""
    if _missing(given):
        return ""
    text = str(given)
    # pandas turns an integer into a rounded float if another slide of the request has none.
    if not isinstance(given, str | int) or len(text) > LONGEST_NAME or not text.isprintable():
        raise RequestError(
            f"slide-{index} ({column}) is not a valid name; give text of at most {LONGEST_NAME} printable characters",
            kind=column,
        )
    return text


def _missing(value: Any) -> bool:
    if isinstance(value, str | bytes):
        return not value
    return value is None or pd.isna(value) is True  # of a list or an array, as Parquet may have, it is another one


def _file(value: Any, name: str) -> bytes:
    """Returns the bytes of a file given as bytes or as base64 text."""
    if _missing(value):
        raise FieldError(f"{name} is missing; give the file's content, as base64 in JSON or bytes in Parquet")
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise FieldError(f"{name} is not a file; give the file's content, as base64 in JSON or bytes in Parquet")
    try:
        return _decoded(value)
    except ValueError as error:
        raise FieldError(
            f"{name} is not valid base64; encode the whole file, without a prefix such as data:"
        ) from error


def _decoded(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # perhaps only because of line breaks, which MLflow's own encoder inserts
        return binascii.a2b_base64("".join(text.split()), strict_mode=True)
