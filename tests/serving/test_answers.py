"""The reader of the answer log."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from doctogres.errors import UpstreamError
from doctogres.serving.answers import COLUMNS, as_line, read_answers

ANSWER = {
    "time": "2026-11-29T12:00:00.250+00:00", "request": "5f2c81d0", "row": 0, "model_id": "m-1", "image_sha256": "ab",
    "label": "Luminal A", "abstained": False, "confidence": 0.75, "probabilities": {"Luminal A": 0.75, "HER2(+)": 0.25},
    "reasons": [], "n_patches": 3, "mask_share": 0.125, "milliseconds": 41.5,
}  # fmt: skip
REFUSAL = {"time": "2026-11-29T11:59:59.125+00:00", "request": "0a0b0c0d", "row": 0, "refusal": "unreadable_image"}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "answers-2.jsonl").write_text(as_line(ANSWER))
    (tmp_path / "answers-1.jsonl").write_text("")
    (tmp_path / "answers-3.jsonl.gz").write_bytes(gzip.compress(as_line(REFUSAL).encode()))
    (tmp_path / "notes.txt").write_text("not a row")
    return tmp_path


def test_the_rows_of_all_files_come_in_the_order_of_time_with_their_types(log: Path) -> None:
    rows = read_answers(log)
    assert rows.dtypes.astype(str).to_dict() == COLUMNS
    assert rows["request"].tolist() == ["0a0b0c0d", "5f2c81d0"]
    refused, answered = rows.to_dict("records")
    assert {name: answered[name] for name in ANSWER} == ANSWER | {"time": pd.Timestamp(str(ANSWER["time"]))}
    assert refused["refusal"] == "unreadable_image"
    missing = [name for name in COLUMNS if name not in REFUSAL]
    assert rows.loc[0, missing].isna().all()


def test_a_log_without_rows_is_an_empty_table(tmp_path: Path) -> None:
    (tmp_path / "answers-1.jsonl").touch()
    rows = read_answers(tmp_path)
    assert len(rows) == 0
    assert rows.dtypes.astype(str).to_dict() == COLUMNS


def test_every_beginning_of_a_file_is_read_up_to_its_last_whole_row(tmp_path: Path) -> None:
    lines = [as_line(REFUSAL), as_line(ANSWER), as_line(ANSWER)]
    whole = "".join(lines).encode()
    for length in {*range(0, len(whole), 40), *(len(lines[0]) + step for step in (-2, -1, 0, 1)), len(whole)}:
        (tmp_path / "answers-1.jsonl").write_bytes(whole[:length])
        assert len(read_answers(tmp_path)) == whole[:length].count(b"\n")


def test_what_a_later_version_adds_is_kept(tmp_path: Path) -> None:
    (tmp_path / "answers-1.jsonl").write_text(as_line({**ANSWER, "site": "north"}))
    assert list(read_answers(tmp_path))[-1] == "site"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{}\n", "line 1 is not a row of an answer log; remove the line"),
        (b"[1]\n", "line 1 is not a row"),
        (as_line(ANSWER).encode() + b"\0\0\n", "line 2 is not a row"),
        (json.dumps({"version": 2}).encode() + b"\n", "line 1 is of version 2, but this doctogres reads version 1"),
    ],
)
def test_a_damaged_row_and_another_version_are_named(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "answers-1.jsonl").write_bytes(content)
    with pytest.raises(UpstreamError, match=rf"answers-1\.jsonl: {sentence}"):
        read_answers(tmp_path)


@pytest.mark.parametrize("damage", [lambda whole: whole[:-4], lambda whole: whole[:12] + b"\xff" * 8 + whole[20:]])
def test_a_damaged_archive_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    (tmp_path / "answers-1.jsonl.gz").write_bytes(damage(gzip.compress(as_line(ANSWER).encode())))
    with pytest.raises(UpstreamError, match=r"answers-1\.jsonl\.gz cannot be read .*; copy it again"):
        read_answers(tmp_path)


def test_what_is_no_answer_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(UpstreamError, match=r"none cannot be read .*DOCTOGRES_ANSWER_LOG"):
        read_answers(tmp_path / "none")
    with pytest.raises(UpstreamError, match=r"no answers-\*\.jsonl in it; .*DOCTOGRES_ANSWER_LOG"):
        read_answers(tmp_path)
    (tmp_path / "answers-1.jsonl.gz").write_bytes(b"not zipped")
    with pytest.raises(UpstreamError, match=r"answers-1\.jsonl\.gz cannot be read"):
        read_answers(tmp_path)
