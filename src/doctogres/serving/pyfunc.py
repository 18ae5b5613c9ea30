"""The MLflow model, logged from this file (models-from-code): slides in, one row per slide out."""

import base64
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Final

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.protos.databricks_pb2 import DEADLINE_EXCEEDED, INTERNAL_ERROR
from mlflow.store.artifact.models_artifact_repo import REGISTERED_MODEL_META_FILE_NAME

from doctogres import __version__
from doctogres.drawing import class_colours, overlay
from doctogres.engine import default_workers, map_slides
from doctogres.errors import DoctogresError, ParameterError
from doctogres.files import sweep, temporary_folder
from doctogres.model.answer import CutSlide, SlideAnswer
from doctogres.model.classifier import SlideClassifier
from doctogres.model.cutting import NoLesionError
from doctogres.model.outlined import outlined_answer
from doctogres.model.scheduling import Job, OverdueError, Scheduler
from doctogres.serving.concurrency import SurroundingServer
from doctogres.serving.contract import Parameters, RequestedSlide, RequestError, requested_slides
from doctogres.serving.groups import with_groups
from doctogres.serving.monitoring import Monitoring, RequestRecord, SlideRecord
from doctogres.serving.signing import check_signature
from doctogres.slides.images import encode_png

WAITS: Final = (0.02,) * 50  # seconds, for a file that another process is writing
logger: Final = logging.getLogger(__name__)


class SlideModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc, name-defined]
    """Classifies whole slides, given as encoded image and optional mask (PNG, JPEG, TIFF); one row per slide."""

    def __init__(self) -> None:
        self.scheduler, self.server = Scheduler(), SurroundingServer()

    def load_context(self, context: Any) -> None:
        with suppress(OSError):  # a folder that may not be listed
            sweep(temporary_folder())  # slides that killed servers were reading
        classifier = Path(context.artifacts["classifier"])
        folder = classifier.parent.parent
        version = registered_name(folder)
        check_signature(folder, version or str(folder))
        self.classifier = SlideClassifier.load(classifier, graphs=True)
        self.model_id = model_id(folder)
        self.model_version = version or self.model_id
        self.monitoring = Monitoring.from_environment(model_version=self.model_version, model_id=self.model_id)

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Returns one row per slide, in the order of the request, or the model's identity; see docs/serving.md.

        Args:
            context: MLflow's context.
            model_input: the columns `image` and, optionally, `mask`, `slide_id` and `group`.
            params: see `contract.Parameters`.

        Raises:
            RequestError: the request is invalid, or a slide is and `on_error` is `raise`.
        """
        with self.monitoring.request() as record:
            try:
                asked = Parameters.of(params)
                if asked.identity:
                    return [self._identity(model_input)]
                record.see(requested_slides(model_input, asked.annotations, asked.mpp))
                size = sum(seen.slide.size for seen in record.slides)
                record.job = job = Job(self.scheduler, self.server.time_limit, size=size)
                rows = list(self._rows(record, asked, job))
                record.rows = with_groups(rows, [seen.slide.group for seen in record.slides], self.classifier.card)
                return record.rows
            except MlflowException:
                raise
            except OverdueError as error:
                raise RequestError(str(error), DEADLINE_EXCEEDED, kind=error.code) from error
            except DoctogresError as error:
                raise RequestError(str(error), kind=error.code) from error
            except Exception as error:
                logger.exception("the model failed")
                sentence = "the model failed on this request; see the server's log"
                raise RequestError(sentence, INTERNAL_ERROR, kind="failed") from error

    def _identity(self, model_input: pd.DataFrame) -> dict[str, Any]:
        if len(model_input):
            raise RequestError(
                "params: identity asks which model is served; leave out the slides", kind=ParameterError.code
            )
        card = self.classifier.card
        return {
            "model_version": self.model_version,
            "model_id": self.model_id,
            "weights_sha256": card.weights_sha256,
            "classes": list(card.classes),
            "networks": card.networks,
            "threshold": card.calibration.threshold,
            "doctogres": __version__,
        }

    def _rows(self, record: RequestRecord, asked: Parameters, job: Job) -> Iterator[dict[str, Any]]:
        classifier = self.classifier.adjusted(tta=asked.tta, min_area=asked.min_area)

        def cut(seen: SlideRecord) -> CutSlide | DoctogresError:
            with job.reading(seen.slide.size):
                try:
                    return classifier.cut(*seen.read())
                except NoLesionError as error:
                    return error
                except DoctogresError as error:
                    return seen.refused(error)

        def usable(ready: Iterable[CutSlide | DoctogresError]) -> Iterator[CutSlide | DoctogresError]:
            for seen, slide in zip(record.slides, ready, strict=True):
                if isinstance(slide, DoctogresError) and seen.is_refused and asked.on_error == "raise":
                    raise record.stop_at(seen, slide) from slide
                yield slide

        workers = min(len(record.slides), default_workers())
        with closing(map_slides(cut, record.slides, workers=workers)) as ready:
            for seen, answer in zip(record.slides, classifier.answers(usable(ready), job), strict=True):
                row = self._row(seen.slide, answer)
                if asked.overlay and isinstance(answer, SlideAnswer):
                    with job.reading(seen.slide.size):
                        row["overlay"] = self._overlay(seen.slide, answer)
                if asked.geojson and isinstance(answer, SlideAnswer):
                    with job.reading(seen.slide.size):
                        row["geojson"] = self._geojson(seen.slide, answer)
                yield row

    def _row(self, slide: RequestedSlide, answer: SlideAnswer | DoctogresError) -> dict[str, Any]:
        row: dict[str, Any] = {
            "slide_id": slide.slide_id,
            "label": None,
            "abstained": True,
            "confidence": None,
            "probabilities": {},  # not None, which Spark cannot convert to a map
            "labels": [],
            "labels_valid": False,
            "novelty": None,
            "n_patches": 0,
            "n_dropped": 0,
            "mask_source": None,
            "patches": [],
            "overlay": None,
            "geojson": None,
            "model_version": self.model_version,
            "model_id": self.model_id,
            "reasons": [],
            "warnings": [],
            "error": None,
        }
        if isinstance(answer, NoLesionError):
            return row | {"reasons": [str(answer)], "warnings": [str(answer)]}
        if isinstance(answer, DoctogresError):
            return row | {"reasons": [str(answer)], "error": str(answer)}
        classes = self.classifier.card.classes
        shares = answer.patch_probabilities.tolist()
        patches = [
            {**patch, "probabilities": dict(zip(classes, row_shares, strict=True))}
            for patch, row_shares in zip(answer.patches.to_dict("records"), shares, strict=True)
        ]
        return row | {
            "label": answer.label,
            "abstained": answer.abstained,
            "confidence": answer.confidence,
            "probabilities": dict(zip(classes, answer.probabilities.tolist(), strict=True)),
            "labels": list(answer.labels),
            "labels_valid": answer.labels_valid,
            "novelty": answer.novelty,
            "n_patches": len(answer.patches),
            "n_dropped": answer.dropped,
            "mask_source": answer.mask_source,
            "patches": patches,
            "reasons": list(answer.reasons),
            "warnings": list(answer.warnings),
        }

    def _overlay(self, slide: RequestedSlide, answer: SlideAnswer) -> str:
        """The overlay as a base64 PNG; the slide is decoded again, so that few images are in memory at a time."""
        source, mask, _ = slide.read()
        patches, shares = answer.patches, answer.patch_probabilities
        boxes = patches[["x", "y", "width", "height"]].to_numpy(np.int64)
        named = answer.mask_source == "given"  # on adjacent tiles, class names would cover the tissue
        texts = [
            f"{label} {share:.2f}" if named else f"{share:.2f}"
            for label, share in zip(patches["label"], shares.max(axis=1), strict=True)
        ]
        colours = mixed_colours(shares, list(self.classifier.card.classes))
        picture = overlay(source.working, boxes, texts, colours, mask, source.size)
        return base64.b64encode(encode_png(picture)).decode()

    def _geojson(self, slide: RequestedSlide, answer: SlideAnswer) -> str:
        """The outlines of the slide's patches; its mask is decoded again, as for the overlay."""
        return outlined_answer(
            slide.slide_id, answer, slide.read()[:2], self.classifier.card.classes, model=self.model_version
        )


def mixed_colours(shares: npt.NDArray[np.float64], classes: list[str]) -> list[tuple[int, int, int]]:
    """A colour per patch: class colours mixed by its probabilities (patches, classes); uncertain patches look dull."""
    palette = np.array(list(class_colours(classes).values()))
    return [(red, green, blue) for red, green, blue in np.rint(shares @ palette).astype(int).tolist()]


def model_id(folder: Path) -> str:
    """The id that the model got when it was logged, which nothing changes: no alias, no version, no other load."""
    model = Model.load(str(folder))
    return str(model.model_id or model.model_uuid)


def registered_name(folder: Path) -> str:
    """The version by which the model was fetched, such as `doctogres/3`; empty if it was fetched otherwise.

    MLflow writes it into the model's folder, which in a local store all processes share: each load by a `models:/` address
    overwrites the file, without a version if it names the id, and the file may be read while it is being written.
    """
    for delay in (0.0, *WAITS):
        time.sleep(delay)
        try:
            text = (folder / REGISTERED_MODEL_META_FILE_NAME).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        if text.endswith("\n") and "\nmodel_version:" in text:  # complete: its last line is the version
            content = yaml.safe_load(text)
            version = content["model_version"]
            return f"{content['model_name']}/{version}" if version else ""
    return ""


mlflow.models.set_model(SlideModel())
