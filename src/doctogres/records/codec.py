"""Dataclasses as rows of Arrow and back; the only place that knows both.

A field may be a text, number, truth value or bytes, an array, a table, another dataclass, a tuple of one of these, a dictionary
from texts to one of these, or None instead. An array is its .npy file, a table its Arrow stream: both say what they hold.
"""

import io
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import pyarrow as pa

PLAIN = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), bytes: pa.binary()}


def arrow_type(kind: Any) -> pa.DataType:
    """The Arrow type of a dataclass or of one of its fields.

    Raises:
        TypeError: values of this type have no row.
    """
    kind = _required(kind)
    if get_origin(kind) is tuple:
        return pa.list_(arrow_type(get_args(kind)[0]))
    if get_origin(kind) is dict:
        return pa.list_(pa.struct([("name", pa.string()), ("value", arrow_type(get_args(kind)[1]))]))
    if _is_array(kind) or kind is pd.DataFrame:
        return pa.binary()
    if _is_record(kind):
        return pa.struct([(name, arrow_type(of_field)) for name, of_field in _fields(kind).items()])
    if kind in PLAIN:
        return PLAIN[kind]
    raise TypeError(f"{kind}: no row can hold this")


def to_row(value: Any, kind: Any) -> Any:
    """A value of this type as Arrow takes it; a dataclass becomes a dictionary."""
    kind = _required(kind)
    if value is None:
        return None
    if get_origin(kind) is tuple:
        return [to_row(one, get_args(kind)[0]) for one in value]
    if get_origin(kind) is dict:
        return [{"name": name, "value": to_row(one, get_args(kind)[1])} for name, one in value.items()]
    if _is_array(kind):
        return _array_bytes(value)
    if kind is pd.DataFrame:
        return _table_bytes(value)
    if _is_record(kind):
        return {name: to_row(getattr(value, name), of_field) for name, of_field in _fields(kind).items()}
    return kind(value)


def from_row(value: Any, kind: Any) -> Any:
    """The reverse of `to_row`."""
    kind = _required(kind)
    if value is None:
        return None
    if get_origin(kind) is tuple:
        return tuple(from_row(one, get_args(kind)[0]) for one in value)
    if get_origin(kind) is dict:
        return {one["name"]: from_row(one["value"], get_args(kind)[1]) for one in value}
    if _is_array(kind):
        return np.load(io.BytesIO(value), allow_pickle=False)
    if kind is pd.DataFrame:
        return pa.ipc.open_stream(value).read_pandas()
    if _is_record(kind):
        return kind(**{name: from_row(value[name], of_field) for name, of_field in _fields(kind).items()})
    return value


@cache
def _fields(kind: Any) -> Mapping[str, Any]:  # reading the hints of a class takes longer than a row
    return get_type_hints(kind)


def _required(kind: Any) -> Any:
    """The type without its None, and of a choice of texts the type of a text."""
    if get_origin(kind) in (Union, UnionType):
        (kind,) = (one for one in get_args(kind) if one is not NoneType)
    return type(get_args(kind)[0]) if get_origin(kind) is Literal else kind


def _is_record(kind: Any) -> bool:
    return is_dataclass(kind)


def _is_array(kind: Any) -> bool:
    return get_origin(kind) is np.ndarray


def _array_bytes(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _table_bytes(rows: pd.DataFrame) -> bytes:
    table = pa.Table.from_pandas(rows)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
