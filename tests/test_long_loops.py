"""Loops that take minutes on a large cohort say how far they are. A line is due at once here, so that a short loop has one, too."""

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.near_duplicates import made_hashes
from doctogres import progress
from doctogres.cleaning.duplicates import MAX_EXHAUSTIVE, near_duplicates
from doctogres.evaluation.bootstrap import resample
from doctogres.progress import place
from doctogres.serving.answers import as_line, read_answers
from doctogres.slides.archives import unpack_zip
from doctogres.slides.cohort import file_hashes
from doctogres.slides.survey import survey


def hash_files(folder: Path) -> None:
    for name in "abc":
        (folder / name).touch()
    file_hashes(folder, "abc")


def unpack(folder: Path) -> None:
    with zipfile.ZipFile(folder / "slides.zip", "w") as archive:
        archive.writestr("a.png", b"1")
        archive.writestr("b.png", b"2")
    unpack_zip(folder / "slides.zip", folder / "unpacked")


def look(folder: Path) -> None:
    (folder / "a.png").touch()
    survey(folder)


def draw(folder: Path) -> None:
    resample(lambda weights: {"sum": weights.sum(axis=1)}, np.arange(50_000), resamples=2000, seed=0)


def read_log(folder: Path) -> None:
    line = as_line({"time": pd.Timestamp(0, tz="UTC").isoformat()}).encode()
    (folder / "answers-2026-11-01-host-1.jsonl.gz").write_bytes(gzip.compress(line))
    read_answers(folder)


def search(folder: Path) -> None:
    near_duplicates(made_hashes(MAX_EXHAUSTIVE + 2, 0.0)[0])


@pytest.mark.parametrize(
    ("loop", "line"),
    [
        (hash_files, "clean: digests of the slides: 3 files in 00:00"),
        (unpack, "clean: unpacking slides.zip: 2 files in 00:00"),
        (look, "clean: looking at the files: 1 slides in 00:00"),
        (draw, "clean: intervals: "),
        (read_log, "clean: reading the answers: 1 files in 00:00"),
        (search, "clean: search for near-copies: "),
    ],
)
def test_it_says_how_far_it_is(
    loop: Callable[[Path], None],
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(progress, "LONG", 0.0)
    with place("clean:"):
        loop(tmp_path)
    assert any(said.startswith(line) for said in capsys.readouterr().err.splitlines())
