"""Dataclasses as rows of Arrow and back; the only place that knows both.

A field may be a text, number, truth value or bytes, an array, a table, another dataclass, a tuple of one of these, a dictionary
from texts to one of these, or None instead. An array is its type, shape and bytes, a table its Arrow stream: both say what they hold.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import pyarrow as pa

PLAIN = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), bytes: pa.binary()}
ARRAY = pa.struct([("dtype", pa.string()), ("shape", pa.list_(pa.int64())), ("content", pa.binary())])


def arrow_type(kind: Any) -> pa.DataType:
    """The Arrow type of a dataclass or of one of its fields.

    Raises:
        TypeError: values of this type have no row.
    """
    return _form(kind).type


def to_row(value: Any, kind: Any) -> Any:
    """A value of this type as Arrow takes it; a dataclass becomes a dictionary."""
    return _form(kind).write(value)


def from_row(value: Any, kind: Any) -> Any:
    """The reverse of `to_row`."""
    return _form(kind).read(value)


@dataclass(frozen=True)
class _Form:
    """How the values of a type are kept."""

    type: pa.DataType
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]

    def optional(self) -> "_Form":
        """The same, None for None."""
        write, read = self.write, self.read
        return _Form(
            self.type,
            lambda value: None if value is None else write(value),
            lambda value: None if value is None else read(value),
        )


@cache  # finding out about a type takes longer than a row
def _form(kind: Any) -> _Form:
    kind = _required(kind)
    if get_origin(kind) is tuple:
        form = _several(_form(get_args(kind)[0]))
    elif get_origin(kind) is dict:
        form = _named(_form(get_args(kind)[1]))
    elif get_origin(kind) is np.ndarray:
        form = _Form(ARRAY, _array_row, _array)
    elif kind is pd.DataFrame:
        form = _Form(pa.binary(), _table_bytes, lambda content: pa.ipc.open_stream(content).read_pandas())
    elif is_dataclass(kind):
        form = _record(kind, {name: _form(of_field) for name, of_field in get_type_hints(kind).items()})
    elif kind in PLAIN:
        form = _Form(PLAIN[kind], kind, lambda value: value)
    else:
        raise TypeError(f"{kind}: no row can hold this")
    return form.optional()


def _required(kind: Any) -> Any:
    """The type without its None, and of a choice of texts the type of a text."""
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (one for one in get_args(kind) if one is not NoneType)
    return type(get_args(kind)[0]) if get_origin(kind) is Literal else kind


def _several(one: _Form) -> _Form:
    return _Form(
        pa.list_(one.type),
        lambda values: list(map(one.write, values)),
        lambda values: tuple(map(one.read, values)),
    )


def _named(one: _Form) -> _Form:
    return _Form(
        pa.list_(pa.struct([("name", pa.string()), ("value", one.type)])),
        lambda values: [{"name": name, "value": one.write(value)} for name, value in values.items()],
        lambda rows: {row["name"]: one.read(row["value"]) for row in rows},
    )


def _record(kind: Any, fields: Mapping[str, _Form]) -> _Form:
    writers = [(name, attrgetter(name), form.write) for name, form in fields.items()]
    readers = [(name, form.read) for name, form in fields.items()]
    return _Form(
        pa.struct([(name, form.type) for name, form in fields.items()]),
        lambda value: {name: write(get(value)) for name, get, write in writers},
        lambda row: kind(**{name: read(row[name]) for name, read in readers}),
    )


def _array_row(array: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"dtype": array.dtype.str, "shape": list(array.shape), "content": array.tobytes()}


def _array(row: Mapping[str, Any]) -> np.ndarray[Any, Any]:
    return np.frombuffer(row["content"], row["dtype"]).reshape(row["shape"]).copy()


def _table_bytes(rows: pd.DataFrame) -> bytes:
    table = pa.Table.from_pandas(rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
