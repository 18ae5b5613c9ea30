"""The rows of the answer log: their columns, and their only reader and writer. docs/operations.md describes them."""

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pandas as pd

from doctogres.errors import UpstreamError
from doctogres.progress import counted
from doctogres.remote import local

VERSION: Final = 1  # raised when older files can no longer be read; a column more does not raise it
FILES: Final = re.compile(r"answers-.+\.jsonl(\.gz)?")
COLUMNS: Final = {  # and their types in pandas
    "time": "datetime64[us, UTC]",
    "request": "string",
    "row": "Int64",
    "slide_id": "string",
    "model_version": "string",
    "model_id": "string",
    "image_sha256": "string",
    "mask_sha256": "string",
    "refusal": "string",
    "label": "string",
    "labels": "object",  # classes
    "labels_valid": "boolean",
    "abstained": "boolean",
    "confidence": "float64",
    "probabilities": "object",  # class -> probability
    "novelty": "float64",
    "reasons": "object",  # sentences
    "warnings": "object",
    "mask_source": "string",
    "n_patches": "Int64",
    "n_dropped": "Int64",
    "patch_side": "float64",
    "width": "Int64",
    "height": "Int64",
    "mask_share": "float64",
    "inside_share": "float64",
    "stain_share": "float64",
    "hue": "float64",
    "saturation": "float64",
    "glass": "float64",
    "milliseconds": "float64",
}


def as_line(row: Mapping[str, Any]) -> str:
    """A row as a line of JSON, with the version."""
    return json.dumps({"version": VERSION, **row}, separators=(",", ":"), allow_nan=False) + "\n"


def read_answers(place: Path | str) -> pd.DataFrame:
    """The rows of all files of an answer log, by time; columns and types are `COLUMNS`, then what newer versions added.

    What a killed process left of a last line is left out.

    Args:
        place: a folder, or its address such as `s3://BUCKET/FOLDER`, of which the workspace gets a copy.

    Raises:
        DoctogresError: an address cannot be read, see `remote.local`.
        UpstreamError: no answer log, a damaged line, or rows of another version; the message names the file.
    """
    table = pd.DataFrame([row for file, content in _files(place) for row in _rows(file, content)])
    table = table.reindex(columns=[*COLUMNS, *(name for name in table if name not in COLUMNS)])
    table["time"] = pd.to_datetime(table["time"], utc=True, format="ISO8601")
    return table.astype(COLUMNS).sort_values("time", kind="stable", ignore_index=True)


def _files(place: Path | str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file."""
    remedy = "give the folder or address that DOCTOGRES_ANSWER_LOG names on the server"
    try:
        found = sorted(path for path in local(place).iterdir() if FILES.fullmatch(path.name))
    except OSError as error:
        raise UpstreamError(f"{place} cannot be read ({error}); {remedy}") from error
    if not found:
        raise UpstreamError(f"{place}: no answers-*.jsonl in it; {remedy}")
    for path in counted(found, "reading the answers", "files", len(found)):
        try:
            content = path.read_bytes()
            yield str(path), gzip.decompress(content) if path.suffix == ".gz" else content
        except (OSError, EOFError, zlib.error) as error:
            raise UpstreamError(f"{path} cannot be read ({error}); copy it again, or remove it") from error


def _rows(file: str, content: bytes) -> Iterator[dict[str, Any]]:
    whole = content[: content.rfind(b"\n") + 1]  # the rest is what a killed process was writing
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = json.loads(line)
            version = row.pop("version")
        except (ValueError, AttributeError, KeyError, TypeError) as error:
            raise UpstreamError(f"{file}: line {number} is not a row of an answer log; remove the line") from error
        if version != VERSION:
            raise UpstreamError(
                f"{file}: line {number} is of version {version}, but this doctogres reads version {VERSION}; use the "
                "doctogres that the model was served with"
            )
        yield row
