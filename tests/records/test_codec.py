"""Dataclasses as rows and back."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest

from doctogres.records.codec import arrow_type, from_row, to_row


@dataclass(frozen=True)
class Inner:
    kind: Literal["a", "b"]
    size: float


@dataclass(frozen=True)
class Everything:
    text: str
    number: int | None
    share: float
    sure: bool
    file: bytes | None
    array: npt.NDArray[np.float16]
    table: pd.DataFrame
    inner: Inner | None
    several: tuple[Inner, ...]
    words: tuple[str, ...]
    named: dict[str, float | None]


def through_arrow(value: Everything) -> Everything:
    schema = pa.schema(arrow_type(Everything).fields)
    (row,) = pa.Table.from_pylist([to_row(value, Everything)], schema).to_pylist()
    found: Everything = from_row(row, Everything)
    return found


@pytest.mark.parametrize("absent", [False, True])
def test_a_record_comes_back_as_it_was_with_its_types(absent: bool) -> None:
    table = pd.DataFrame({"x": [1, 2], "label": ["a", None], "novelty": [np.nan, 0.5]}, index=[3, 5])
    given = Everything(
        text="",
        number=None if absent else 2**40,
        share=float("nan"),
        sure=True,
        file=None if absent else b"\0\xff",
        array=np.arange(6, dtype=np.float16).reshape(1, 2, 3),
        table=table,
        inner=None if absent else Inner("b", 0.1),
        several=() if absent else (Inner("a", np.float64(1 / 3)), Inner("b", 2)),
        words=() if absent else ("x", ""),
        named={} if absent else {"hue": None, "": 0.1},
    )
    found = through_arrow(given)
    pd.testing.assert_frame_equal(found.table, table)
    assert found.array.dtype == np.float16
    np.testing.assert_array_equal(found.array, given.array)
    assert found.share != found.share
    for name in ("text", "number", "sure", "file", "inner", "several", "words", "named"):
        assert getattr(found, name) == getattr(given, name)
        assert type(getattr(found, name)) is type(getattr(given, name))


def test_what_no_row_can_hold_is_refused() -> None:
    with pytest.raises(TypeError, match="complex"):
        arrow_type(complex)
