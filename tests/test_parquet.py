"""Tables in files that say what they hold."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from doctogres.errors import UpstreamError
from doctogres.parquet import TableFile

FILE = TableFile("table of trees", version=2, columns=("name", "height"), stage="plant")
TREES = pd.DataFrame({"name": ["oak", None], "height": pd.array([12, None], "Int64"), "p_x": [0.1 + 0.2, 1e-300]})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "trees.parquet"


def test_rows_and_metadata_come_back_as_they_were(path: Path) -> None:
    about = {"classes": ["ä b", ""], "images": {"1": "x"}}
    FILE.write(TREES.astype({"name": "str"}), path, about)
    rows, read = FILE.read(path)
    pd.testing.assert_frame_equal(rows, TREES.astype({"name": "str"}))
    assert read == about
    assert [file.name for file in path.parent.iterdir()] == ["trees.parquet"]


def test_the_same_table_gives_the_same_bytes_wherever_it_is_written(path: Path, tmp_path: Path) -> None:
    FILE.write(TREES, path, {"a": 1})
    FILE.write(TREES, tmp_path / "deep/er/other.parquet", {"a": 1})
    assert (tmp_path / "deep/er/other.parquet").read_bytes() == path.read_bytes()


def test_what_cannot_be_written_leaves_nothing(path: Path) -> None:
    with pytest.raises(TypeError):
        FILE.write(TREES, path, {"a": object()})
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize(
    ("wrote", "sentence"),
    [
        (TableFile("table of flowers", 2, (), "plant"), "not a table of trees but a table of flowers; .*`plant`"),
        (
            TableFile("table of trees", 3, (), "plant"),
            r"version 3, but this doctogres reads version 2 \(update doctogres\)",
        ),
        (TableFile("table of trees", 1, (), "plant"), "version 1, but this doctogres reads version 2; .*`plant`"),
    ],
)
def test_another_table_or_version_is_refused(path: Path, wrote: TableFile, sentence: str) -> None:
    wrote.write(TREES, path, {})
    with pytest.raises(UpstreamError, match=rf"trees\.parquet: .*{sentence}"):
        FILE.read(path)


def test_a_file_that_does_not_say_what_it_holds_is_refused(path: Path) -> None:
    TREES.to_parquet(path)
    with pytest.raises(UpstreamError, match="no doctogres metadata: an older version"):
        FILE.read(path)


def test_a_missing_column_is_named(path: Path) -> None:
    FILE.write(TREES.drop(columns="height"), path, {})
    with pytest.raises(UpstreamError, match="not a table of trees: height missing"):
        FILE.read(path)


@pytest.mark.parametrize("content", [b"", b"name,height", None])
def test_what_is_no_parquet_file_is_named(path: Path, content: bytes | None) -> None:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UpstreamError, match=r"trees\.parquet: not a table of trees \("):
        FILE.read(path)


def batches_of(*names: str) -> Iterator[pa.RecordBatch]:
    return (pa.RecordBatch.from_pydict({"name": [name], "height": [len(name)]}) for name in names)


SCHEMA = pa.schema([("name", pa.string()), ("height", pa.int64())])


def test_batches_are_written_as_they_come_and_read_one_by_one(path: Path) -> None:
    held: list[int] = []

    def made() -> Iterator[pa.RecordBatch]:
        for number in range(20):
            yield pa.RecordBatch.from_pydict({"name": [f"{number}" * 2**20], "height": [number]}, SCHEMA)
            held.append(pa.total_allocated_bytes())

    FILE.write_batches(made(), SCHEMA, path, lambda: {"trees": len(held)})
    assert held[-1] - held[0] < 4 * 2**20  # of 20 to 40
    assert FILE.read_about(path) == {"trees": 20}
    assert [batch.column("height").to_pylist() for batch in FILE.read_batches(path)] == [[it] for it in range(20)]
    assert next(FILE.read_batches(path, ["height"])).schema.names == ["height"]
    assert FILE.read(path)[0]["height"].tolist() == list(range(20))


def test_batches_whose_end_fails_leave_nothing(path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        FILE.write_batches(batches_of("oak"), SCHEMA, path, lambda: {"share": 1 // 0})
    assert not list(path.parent.iterdir())


def test_a_file_that_is_damaged_in_the_middle_is_refused_where_it_is_read(path: Path) -> None:
    FILE.write_batches(batches_of("oak", "lime"), SCHEMA, path, dict)
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(60) + content[64:])
    assert FILE.read_about(path) == {}
    with pytest.raises(UpstreamError, match=r"trees\.parquet: not a table of trees \("):
        list(FILE.read_batches(path))


def test_the_metadata_is_in_the_file_once(path: Path) -> None:
    FILE.write(TREES, path, {"figures": "x" * 1000})
    assert path.read_bytes().count(b"x" * 1000) == 1
    assert FILE.read(path)[1]["figures"] == "x" * 1000
    assert b"doctogres" not in (pq.read_schema(path).metadata or {})  # there it would be encoded a second time
