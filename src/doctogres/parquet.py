"""Typed, versioned tables in Parquet files: one key of the file's metadata holds {table, version, ...} as JSON."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from doctogres.errors import UpstreamError
from doctogres.files import replacing

KEY: Final = b"doctogres"


@dataclass(frozen=True)
class TableFile:
    """A kind of table that stages pass on as a file, and the only reader and writer of such files.

    Attributes:
        table: its name, in the file and in messages.
        version: raised when older files can no longer be read.
        columns: the required columns; a file may have more.
        stage: the stage that writes such files.
    """

    table: str
    version: int
    columns: tuple[str, ...]
    stage: str

    def write(self, rows: pd.DataFrame | pa.Table, path: Path, about: Mapping[str, Any]) -> None:
        """Writes the rows with `about` (JSON-serialisable) as metadata; a killed process leaves no half-written file."""
        content = rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows, preserve_index=False)
        metadata = {"table": self.table, "version": self.version, **about}
        content = content.replace_schema_metadata({**(content.schema.metadata or {}), KEY: json.dumps(metadata)})
        with replacing(path) as partial:
            pq.write_table(content, partial)

    def read(self, path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Returns the rows and the metadata written with them.

        Raises:
            UpstreamError: not such a file, or one of another version; the message says what it is and what to do.
        """
        return self._read(path, pd.read_parquet)

    def read_arrow(self, path: Path) -> tuple[pa.Table, dict[str, Any]]:
        """As `read`, with the types of the file: a table of pandas has no nested rows, and no missing numbers but NaN."""
        return self._read(path, pq.read_table)

    def _read(self, path: Path, reader: Callable[[Path], Any]) -> tuple[Any, dict[str, Any]]:
        try:
            metadata = json.loads((pq.read_schema(path).metadata or {}).get(KEY, b"{}"))
            rows = reader(path)
        except (OSError, ValueError) as error:  # Arrow's own errors are of these
            raise self._refusal(path, f"not a {self.table} ({str(error).splitlines()[0]})") from error
        table, version = metadata.pop("table", None), metadata.pop("version", None)
        if table is None:
            why = "it has no doctogres metadata: an older version of doctogres or another program wrote it"
            raise self._refusal(path, f"not a {self.table} ({why})")
        if table != self.table:
            raise self._refusal(path, f"not a {self.table} but a {table}")
        if version != self.version:
            newer = " (update doctogres)" if version > self.version else ""
            raise self._refusal(
                path, f"a {table} of version {version}, but this doctogres reads version {self.version}{newer}"
            )
        if missing := [column for column in self.columns if column not in _names(rows)]:
            raise self._refusal(path, f"not a {self.table}: {', '.join(missing)} missing")
        return rows, metadata

    def _refusal(self, path: Path, problem: str) -> UpstreamError:
        return UpstreamError(f"{path}: {problem}; give the result of a run of `{self.stage}` with this version")


def _names(rows: Any) -> list[str]:
    return list(rows.columns if isinstance(rows, pd.DataFrame) else rows.column_names)
