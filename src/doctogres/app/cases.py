"""A slide on the page: its files, and what the model answered."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from doctogres.app.sentences import plain, refused, sent_name
from doctogres.app.uploads import Pair
from doctogres.errors import DoctogresError
from doctogres.serving.client import RefusedError, ServerError, ask, slide_body
from doctogres.slides.images import encode_jpeg, read_rgb
from doctogres.slides.reasons import parsed

QUALITY = 88  # of the overlays that the page keeps, as JPEG: a tenth of the answer's PNG


class Status(StrEnum):
    """What the table says of a slide."""

    SURE = "Sure"
    NOT_SURE = "Not sure"
    REFUSED = "Refused"
    WAITING = "Waiting"


@dataclass(frozen=True)
class Result:
    """What the server said of a slide.

    Attributes:
        time: of the answer.
        answer: a row of the response, without its overlay; without a label where `refusal` says why.
        overlay: the slide with its regions, as JPEG; empty without one.
        refusal: why there is no answer, in a sentence.
    """

    time: datetime
    answer: Mapping[str, Any]
    overlay: bytes = b""
    refusal: str = ""


@dataclass(frozen=True)
class Case:
    """A pair of files with its result, if there is one."""

    pair: Pair
    result: Result | None = None

    @property
    def status(self) -> Status:
        """Refused are also files that are no pair."""
        if self.refusal:
            return Status.REFUSED
        if not self.result:
            return Status.WAITING
        return Status.NOT_SURE if self.answer["abstained"] else Status.SURE

    @property
    def refusal(self) -> str:
        """Why there can be no answer; empty otherwise."""
        return self.pair.problem or (self.result.refusal if self.result else "")

    @property
    def answer(self) -> Mapping[str, Any]:
        """Empty without a label."""
        return self.result.answer if self.result and not self.refusal else {}

    @property
    def note(self) -> str:
        """Why there is no answer, why the model is not sure, what else the reader must know."""
        if not self.answer:
            return self.refusal
        reasons = [parsed(reason)[1] for reason in self.answer["reasons"]]
        warnings = [text for text in self.answer["warnings"] if text not in self.answer["reasons"]]
        if self.answer["mask_source"] == "tissue":
            warnings = ["no lesion mask: tiles of the tissue were classified"]
        return "; ".join([*reasons, *warnings])


def classified(pair: Pair, url: str, timeout: float) -> Result:
    """Asks the server for one slide.

    Raises:
        ServerError: it does not answer, or refuses every slide at present.
    """
    assert pair.slide  # else there is nothing to ask
    try:
        body = slide_body(sent_name(pair), pair.slide.content, pair.mask.content if pair.mask else None, overlay=True)
        (answer,) = ask(url, body, timeout=timeout)
    except RefusedError as error:
        return Result(datetime.now(), {}, refusal=refused(error, pair))
    except ServerError:
        raise
    except DoctogresError as error:
        return Result(datetime.now(), {}, refusal=plain(str(error), pair))
    texts = {name: [plain(text, pair) for text in answer[name]] for name in ("reasons", "warnings")}
    if not answer["label"]:
        return Result(datetime.now(), {}, refusal="; ".join(texts["warnings"]))
    overlay = read_rgb(base64.b64decode(answer["overlay"]), name=pair.title)
    kept = answer | texts | {"overlay": None, "slide_id": pair.slide_id}
    return Result(datetime.now(), kept, encode_jpeg(overlay, QUALITY))


def counted(cases: Iterable[Case]) -> str:
    """How many slides there are of each status: `20 slides: 12 sure, 5 not sure, 3 refused`."""
    found = [case.status for case in cases if case.pair.slide]
    parts = ", ".join(f"{found.count(status)} {status.lower()}" for status in Status if status in found)
    return f"{len(found)} {'slide' if len(found) == 1 else 'slides'}{': ' * bool(parts)}{parts}"
