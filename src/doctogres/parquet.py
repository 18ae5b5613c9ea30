"""Typed, versioned tables in Parquet files: one key of the file's metadata holds {table, version, ...} as JSON."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
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

    def write(self, rows: pd.DataFrame, path: Path, about: Mapping[str, Any]) -> None:
        """Writes the rows with `about` (JSON-serialisable) as metadata; a killed process leaves no half-written file."""
        content = pa.Table.from_pandas(rows, preserve_index=False)
        self.write_batches(content.to_batches(), content.schema, path, lambda: about)

    def write_batches(
        self,
        batches: Iterable[pa.RecordBatch],
        schema: pa.Schema,
        path: Path,
        about: Callable[[], Mapping[str, Any]],
    ) -> None:
        """As `write`, for rows that are made one after the other: each batch goes to the disk when it comes.

        Args:
            batches: each becomes a row group.
            schema: of all of them.
            path: the file.
            about: asked for the metadata after the last batch; no file is left if it raises an error.
        """
        with replacing(path) as partial, pq.ParquetWriter(partial, schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
            writer.add_key_value_metadata({KEY: self._metadata(about())})

    def read(self, path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Returns the rows and the metadata written with them.

        Raises:
            UpstreamError: not such a file, or one of another version; the message says what it is and what to do.
        """
        about = self.read_about(path)
        with self._refusing(path):
            return pd.read_parquet(path), about

    def read_batches(self, path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yields the rows by row groups, with the types of the file: pandas has no nested rows, and no missing numbers but NaN.

        Raises:
            UpstreamError: the file is damaged.
        """
        with self._refusing(path), pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield from file.read_row_group(group, columns).to_batches()

    def read_about(self, path: Path) -> dict[str, Any]:
        """The metadata alone; raises as `read` does."""
        with self._refusing(path):
            found = pq.read_metadata(path)
            metadata = json.loads((found.metadata or {}).get(KEY, b"{}"))
            columns = found.schema.to_arrow_schema().names
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
        if missing := [column for column in self.columns if column not in columns]:
            raise self._refusal(path, f"not a {self.table}: {', '.join(missing)} missing")
        return dict(metadata)

    @contextmanager
    def _refusing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # Arrow's own errors are of these
            raise self._refusal(path, f"not a {self.table} ({str(error).splitlines()[0]})") from error

    def _metadata(self, about: Mapping[str, Any]) -> str:
        return json.dumps({"table": self.table, "version": self.version, **about})

    def _refusal(self, path: Path, problem: str) -> UpstreamError:
        return UpstreamError(f"{path}: {problem}; give the result of a run of `{self.stage}` with this version")
