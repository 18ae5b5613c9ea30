"""What is kept of every request: a line in the server's log and, where the operator asks for it, rows and metrics.

docs/operations.md describes them. A failure in here is written to the server's log and never changes an answer.
"""

import logging
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from doctogres.errors import DoctogresError, ParameterError
from doctogres.model.scheduling import Job
from doctogres.serving.answer_copies import copied_log
from doctogres.serving.answer_log import FOLDER_VARIABLE, NAMES_VARIABLE, AnswerLog
from doctogres.serving.contract import RequestedSlide, RequestError
from doctogres.serving.figures import digests, median_side
from doctogres.serving.metrics import Metrics
from doctogres.slides.figures import figures
from doctogres.slides.source import SlideSource
from doctogres.slides.tissue import ReducedPicture

server_log: Final = logging.getLogger("uvicorn.error")  # uvicorn's own log, errors or not, which MLflow's server shows
logger: Final = logging.getLogger(__name__)
SAME: Final = (  # columns of the answer that are logged as they are
    "model_version", "model_id", "label", "labels", "labels_valid", "abstained", "confidence", "probabilities", "novelty",
    "mask_source", "n_patches", "n_dropped",
)  # fmt: skip


@dataclass
class SlideRecord:
    """A slide of a request, and what was found out about it on the way to its answer."""

    slide: RequestedSlide
    measured: bool  # whether digests and figures are wanted
    found: dict[str, Any] = field(default_factory=dict)

    def read(self) -> tuple[SlideSource, npt.NDArray[np.bool_] | None, str, ReducedPicture | None]:
        """See `RequestedSlide.read`; and the picture at a reduced size, if it was measured."""
        image, mask = self.slide.files()
        if self.measured:
            self.found |= digests(image, mask)
        source, lesion, note = self.slide.decoded(image, mask)
        reduced = ReducedPicture.of(source) if self.measured else None
        if reduced:
            self.found |= figures(source, lesion, reduced)
        return source, lesion, note, reduced

    @property
    def is_refused(self) -> bool:
        """Whether the slide cannot be used."""
        return "refusal" in self.found

    def refused(self, error: DoctogresError) -> DoctogresError:
        """Notes that the slide cannot be used; returns the error with the slide's name."""
        self.found["refusal"] = self.slide.kind_of(error)
        return self.slide.named(error)


@dataclass
class RequestRecord:
    """A request; `rows` are its answers, of which a refused request has none."""

    measured: bool
    slides: list[SlideRecord] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    refusal: str = ""  # of the whole request
    stopped_at: SlideRecord | None = None  # the slide for which it was refused
    job: Job | None = None  # once it may wait for others
    number: str = field(default_factory=lambda: secrets.token_hex(4))
    began: float = field(default_factory=time.perf_counter)

    def see(self, slides: Sequence[RequestedSlide]) -> list[SlideRecord]:
        """Takes note of the request's slides."""
        self.slides = [SlideRecord(slide, self.measured) for slide in slides]
        return self.slides

    def stop_at(self, slide: SlideRecord, error: DoctogresError) -> RequestError:
        """The error that ends the request because of a slide."""
        self.stopped_at = slide
        return RequestError(str(error), kind=slide.found["refusal"])

    @property
    def refusals(self) -> Counter[str]:
        """How many slides were refused by kind; a request that is refused as a whole counts once."""
        if self.refusal:
            return Counter([self.refusal])
        return Counter(slide.found["refusal"] for slide in self.slides if slide.is_refused)

    @property
    def sure(self) -> list[bool]:
        """Of each slide that was answered, whether the answer is sure."""
        return [not row["abstained"] for row in self.rows if not row["error"]]


class Monitoring:
    """Keeps what is wanted of every request to one model."""

    def __init__(
        self,
        model: Mapping[str, str],
        log: AnswerLog | None = None,
        metrics: Metrics | None = None,
        *,
        names: bool = False,
    ):
        """`model` has its `model_version` and `model_id`; with `names`, the log has the slides' names."""
        self.model, self.log, self.metrics, self.names = model, log, metrics, names

    @classmethod
    def from_environment(cls, **model: str) -> "Monitoring":
        """As the server's environment asks for it.

        Raises:
            ParameterError: a variable has a value that means nothing.
        """
        names = _is_set(NAMES_VARIABLE)
        return cls(
            model, _log_of(os.environ.get(FOLDER_VARIABLE, "").strip()), Metrics.from_environment(model), names=names
        )

    @contextmanager
    def request(self) -> Iterator[RequestRecord]:
        """A record that the block fills; however the block ends, it is then kept."""
        record = RequestRecord(measured=self.log is not None)
        try:
            yield record
        except RequestError as error:
            record.refusal, record.status = error.kind, error.get_http_status_code()  # type: ignore[no-untyped-call]
            raise
        finally:
            try:
                self._keep(record)
            except Exception:
                logger.exception("the request %s is not logged", record.number)

    def _keep(self, record: RequestRecord) -> None:
        if not record.slides and not record.refusal:
            return  # the identity was asked for
        seconds = time.perf_counter() - record.began
        rows = self._logged(record, 1000 * seconds) if self.log else []
        lost = self.log.append(rows) if self.log and rows else 0
        sure, refusals = record.sure, record.refusals
        not_sure = sure.count(False)
        if self.metrics:
            self.metrics.count(
                status=record.status,
                seconds=seconds,
                waited=record.job.waited if record.job else 0.0,
                slides=len(sure),
                not_sure=not_sure,
                refusals=refusals,
                lost=lost,
            )
        refused = ", ".join(f"{count} ({kind})" for kind, count in refusals.items()) or "0"
        server_log.info(
            "request %s to %s: slides %d, not sure %d, refused %s, %.0f ms%s",
            record.number,
            self.model["model_version"],
            len(record.slides),
            not_sure,
            f"as a whole ({record.refusal})" if record.refusal else refused,
            1000 * seconds,
            ", not in the answer log" if lost else "",
        )

    def _logged(self, record: RequestRecord, milliseconds: float) -> list[dict[str, Any]]:
        """A row per slide that was answered or refused; the others of a request that failed got no answer."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        of_all = {"time": now, "request": record.number, "milliseconds": round(milliseconds, 1), **self.model}
        answers = record.rows or [{}] * len(record.slides)
        return [
            {**of_all, "row": place, "slide_id": seen.slide.slide_id if self.names else None}
            | seen.found
            | ({} if seen.is_refused else self._of_answer(seen.slide, answer))
            for place, (seen, answer) in enumerate(zip(record.slides, answers, strict=True))
            if answer or seen is record.stopped_at
        ]

    def _of_answer(self, slide: RequestedSlide, answer: Mapping[str, Any]) -> dict[str, Any]:
        sentences = {name: answer[name] for name in ("reasons", "warnings")}
        if not self.names:
            sentences = {name: list(map(slide.without_name, texts)) for name, texts in sentences.items()}
        same = {name: answer[name] for name in SAME}
        return same | sentences | {"patch_side": median_side(answer["patches"])}


def _log_of(place: str) -> AnswerLog | None:
    """The log in a folder or at an address; None if neither is named."""
    if "://" in place:
        return copied_log(place)
    return AnswerLog(Path(place).absolute()) if place else None


def _is_set(variable: str) -> bool:
    text = os.environ.get(variable, "").strip().lower()
    if text not in ("", "true", "false"):
        raise ParameterError(f"{variable} is {text!r}; give true or false")
    return text == "true"
