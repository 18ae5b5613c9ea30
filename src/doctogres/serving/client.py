"""Classifies a slide with a served model: `python -m doctogres.client SLIDE [MASK] [--url URL] [--overlay FILE]`.

With `--identity` instead of a slide it prints which model is served. Needs only Python's standard library.
"""

import argparse
import base64
import http.client
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from doctogres.addresses import check_address
from doctogres.errors import DoctogresError, show_error
from doctogres.files import keep_private
from doctogres.slides.layout import FORMAT_NAMES

URL: Final = "http://127.0.0.1:5001"
TIMEOUT: Final = 120.0
OTHER_MODEL: Final = "{url} does not serve a doctogres model; give another --url"
NO_PASSWORD: Final = "leave it out: a served model asks for none"


class ServerError(DoctogresError):
    """The server is unreachable, refused the request, or did not return an answer."""

    code = "server"


class RefusedError(ServerError):
    """The server refused the request with an HTTP status; `sentence` is its message."""

    code = "refused"

    def __init__(self, url: str, status: int, sentence: str):
        super().__init__(f"{url} refused the request ({status}): {sentence}")
        self.status, self.sentence = status, sentence


class SlowServerError(ServerError):
    """The server did not answer in time."""


class OtherServerError(ServerError):
    """The server answered as no doctogres model does."""


def slide_body(
    slide_id: str, image: bytes, mask: bytes | None = None, *, group: str = "", **params: Any
) -> dict[str, Any]:
    """Returns the JSON body of POST /invocations for one slide.

    Args:
        slide_id: identifies the slide in the answer and in errors.
        image: content of the image file.
        mask: content of the mask file; without it the model classifies tiles of the tissue.
        group: the patient, whose slides in one request are answered together, too; see `joined`.
        params: parameters of the request, such as `overlay=True`.

    Raises:
        DoctogresError: a file is empty, which the server would treat as missing.
    """
    for part, content in (("image", image), ("mask", mask)):
        if content == b"":
            raise DoctogresError(f"{slide_id} ({part}) is an empty file; copy or export it again")
    row = {"slide_id": slide_id, "image": _base64(image)} | ({"mask": _base64(mask)} if mask is not None else {})
    row |= {"group": group} if group else {}
    return {"dataframe_records": [row]} | ({"params": params} if params else {})


def request_body(slide: Path, mask: Path | None = None, **params: Any) -> dict[str, Any]:
    """The same for files; the slide is named after the image file."""
    return slide_body(slide.stem, _content(slide), _content(mask) if mask else None, **params)


def joined(bodies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The body of one request for the slides of several; the parameters are those of the first one."""
    return {**bodies[0], "dataframe_records": [row for body in bodies for row in body["dataframe_records"]]}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DoctogresError(f"{path}: cannot be read ({error.strerror})") from error


def ask(url: str, body: Mapping[str, Any], *, timeout: float = TIMEOUT) -> list[dict[str, Any]]:
    """Sends a request and returns the answers, one row per slide.

    Args:
        url: address of the server, without `/invocations`.
        body: body of the request.
        timeout: in seconds.

    Raises:
        ParameterError: the address holds a password.
        ServerError: with the server's message, if there is one.
    """
    check_address("url", url, NO_PASSWORD)
    answers = _post(url, body, timeout)
    if len(answers) != len(body["dataframe_records"]) or not all("model_version" in answer for answer in answers):
        raise OtherServerError(OTHER_MODEL.format(url=url))
    return answers


def ask_identity(url: str, *, timeout: float = TIMEOUT) -> dict[str, Any]:
    """Which model is served: `model_version`, `model_id`, digest of the weights, classes and more, without a slide.

    Raises:
        ServerError: with the server's message, if there is one; a model logged by an older version knows no identity.
    """
    answers = _post(url, {"dataframe_records": [], "params": {"identity": True}}, timeout)
    if len(answers) != 1 or "model_id" not in answers[0]:
        raise OtherServerError(OTHER_MODEL.format(url=url))
    return answers[0]


def _post(url: str, body: Mapping[str, Any], timeout: float) -> list[dict[str, Any]]:
    kind = {"Content-Type": "application/json"}
    try:
        request = urllib.request.Request(f"{url.rstrip('/')}/invocations", json.dumps(body).encode(), kind)
        with urllib.request.urlopen(request, timeout=timeout) as response:
            answers: list[dict[str, Any]] = json.load(response)["predictions"]
        return answers
    except urllib.error.HTTPError as error:
        raise RefusedError(url, error.code, _sentence(error)) from error
    except TimeoutError as error:
        raise SlowServerError(f"{url} did not answer within {timeout:g} s; increase --timeout") from error
    except (urllib.error.URLError, ConnectionError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise SlowServerError(f"{url} could not be reached within {timeout:g} s; check the address") from error
        raise ServerError(
            f"{url} does not answer ({reason}); start a server with `make serve`, or give another --url"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise OtherServerError(OTHER_MODEL.format(url=url)) from error


def _sentence(error: urllib.error.HTTPError) -> str:
    content = error.read().decode("utf-8", "replace")
    try:
        return str(json.loads(content)["message"]).splitlines()[0]
    except (ValueError, KeyError, TypeError, IndexError):
        return content.strip()[:200] or str(error.reason)


def as_text(answer: Mapping[str, Any]) -> str:
    """An answer as a text table."""
    sure = " (not sure)" if answer["label"] and answer["abstained"] else ""
    shares = sorted(answer["probabilities"].items(), key=lambda item: -item[1])
    width = max((len(name) for name, _ in shares), default=0)
    rows = [("slide", answer["slide_id"]), ("label", f"{answer['label'] or 'none'}{sure}")]
    if answer["confidence"] is not None:
        rows.append(("confidence", f"{answer['confidence']:.2f}"))
    rows += [
        ("" if index else "probabilities", f"{name:{width}}  {share:.3f}") for index, (name, share) in enumerate(shares)
    ]
    rows += [
        *(("one of", text) for text in [_labels(answer)] if text),
        ("patches", f"{answer['n_patches']}, {answer['n_dropped']} left out; mask: {answer['mask_source'] or 'none'}"),
        ("model", " ".join(dict.fromkeys([answer["model_version"], answer.get("model_id", "")])).strip()),
        *(("not sure", text) for text in answer["reasons"]),
        *(("warning", text) for text in answer["warnings"] if text not in answer["reasons"]),
        *(("error", text) for text in [answer["error"]] if text),
        *(_group_rows(answer) if answer.get("group") else []),
    ]
    return "\n".join(f"{name:14}{text}" for name, text in rows)


def _group_rows(answer: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The answer for the slide's group, as rows of the table."""
    label, confidence = answer["group_label"] or "none", answer["group_confidence"]
    sure = " (not sure)" if answer["group_label"] and answer["group_abstained"] else ""
    share = "" if confidence is None else f", confidence {confidence:.2f}"
    return [
        ("group", f"{answer['group']}: {label}{sure}{share}, slides {answer['group_slides']}"),
        *(("not sure", text) for text in answer["group_reasons"]),
        *(("left out", text) for text in answer["group_left_out"]),
    ]


def _labels(answer: Mapping[str, Any]) -> str:
    """The labels of which one is the truth as often as the model was asked for; empty without any."""
    valid = "" if answer.get("labels_valid") else " (not valid for this slide)"
    return ", ".join(labels) + valid if (labels := answer.get("labels")) else ""


def identity_as_text(identity: Mapping[str, Any]) -> str:
    """Which model is served, as a text table."""
    shown = {**identity, "classes": ", ".join(identity["classes"])}
    return "\n".join(f"{name.replace('_', ' '):16}{value}" for name, value in shown.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0 if the slides were classified, otherwise 1."""
    parser = argparse.ArgumentParser(prog="doctogres.client", description="Classifies a slide with a served model.")
    parser.add_argument("slide", type=Path, nargs="?", help=f"image file: {FORMAT_NAMES}")
    parser.add_argument(
        "mask",
        type=Path,
        nargs="?",
        help="lesion mask of the same size; without it, tiles of the tissue are classified",
    )
    parser.add_argument("--url", default=URL, help="address of the server (default: %(default)s)")
    parser.add_argument(
        "--overlay", type=Path, metavar="FILE", help="write an image of the slide with its regions (PNG)"
    )
    parser.add_argument(
        "--geojson",
        type=Path,
        metavar="FILE",
        help="write the outlines of the slide's regions with their classes, for QuPath",
    )
    parser.add_argument(
        "--annotations",
        default="",
        metavar="NAMES",
        help="classes or names of the outlines of a GeoJSON mask that are lesions",
    )
    parser.add_argument(
        "--group", default="", metavar="NAME", help="the patient: all slides are answered together, too"
    )
    parser.add_argument(
        "--more",
        type=Path,
        nargs="+",
        action="append",
        default=[],
        metavar="FILE",
        help="another SLIDE [MASK] of the group",
    )
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="timeout in seconds (default: %(default)g)")
    parser.add_argument("--identity", action="store_true", help="print which model is served, without a slide")
    given = parser.parse_args(arguments)
    if given.identity == bool(given.slide):
        parser.error("give either a slide or --identity")
    if given.more and (not given.group or given.overlay or given.geojson or max(map(len, given.more)) > 2):
        parser.error("--more SLIDE [MASK] needs --group, at most two files, and neither --overlay nor --geojson")
    try:
        keep_private()
        if given.identity:
            print(identity_as_text(ask_identity(given.url, timeout=given.timeout)))
            return 0
        asked = {"overlay": bool(given.overlay), "geojson": bool(given.geojson), "annotations": given.annotations}
        params = {name: value for name, value in asked.items() if value}
        slides = [(given.slide, given.mask), *given.more]
        bodies = [request_body(*slide, group=given.group, **params) for slide in slides]
        answers = ask(given.url, joined(bodies), timeout=given.timeout)
        print("\n\n".join(map(as_text, answers)))
        if given.overlay:
            _write("overlay", given.overlay, base64.b64decode(answers[0]["overlay"] or ""))
        if given.geojson:
            _write("geojson", given.geojson, (answers[0]["geojson"] or "").encode())
    except DoctogresError as error:
        show_error("doctogres.client", str(error))
        return 1
    except KeyboardInterrupt:
        show_error("doctogres.client", "interrupted while waiting for the answer; nothing was written")
        return 130
    return 0


def _write(what: str, path: Path, content: bytes) -> None:
    if not content:
        raise DoctogresError(f"{path}: not written: there is no {what} of a slide without classified regions")
    try:
        path.write_bytes(content)
    except OSError as error:
        raise DoctogresError(f"{path}: cannot be written ({error.strerror})") from error
    print(f"{what:14}{path}")


if __name__ == "__main__":
    sys.exit(main())
