"""Shares of a cohort in files, and how much of them is in memory."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest

from doctogres.cleaning.evidence import Evidence
from doctogres.errors import DoctogresError, MissingSharesError
from doctogres.records.share import WHOLE, Share
from doctogres.records.slide import BATCH, Done, Slide, Threads, done_batches, problems_in
from doctogres.records.store import Shares

SIZE = 10_000  # bytes of a record
SLIDES = 12 * BATCH


@dataclass(frozen=True)
class Content:
    """A record, as large as one of `clean`."""

    slide_id: str
    content: bytes


@dataclass(frozen=True)
class Made:
    """Work that reads nothing, notes Arrow's memory, and fails for one slide."""

    root: Path
    held: list[int]
    record: ClassVar = Content
    model: ClassVar = None

    def __call__(self, slides: Iterable[Slide], *, workers: int | None = None) -> Iterator[Content | DoctogresError]:
        for slide in slides:
            self.held.append(pa.total_allocated_bytes())
            number = int(slide.slide_id)
            yield DoctogresError("unlucky") if number == 13 else Content(slide.slide_id, number.to_bytes(SIZE))


def shares_in(folder: Path) -> tuple[Shares, Made]:
    slides = [Slide(f"{number}", None, None, "", None, "kept", "") for number in range(SLIDES)]
    work = Made(folder, [])
    return Shares(folder, "count", work, slides, {}, "code"), work


def test_a_share_is_made_and_joined_batch_by_batch(tmp_path: Path) -> None:
    shares, work = shares_in(tmp_path)
    before, most = pa.total_allocated_bytes(), 4 * BATCH * SIZE
    assert shares.write(WHOLE, Threads()).problems == 1
    assert max(work.held) - before < most  # of twelve
    held: list[int] = []

    def keep(record: Content) -> int:
        held.append(pa.total_allocated_bytes())
        return int.from_bytes(record.content)

    joined = shares.join(keep)
    assert max(held) - before < most
    kept = {slide: one for slide, one in joined.records.items() if slide != "13"}
    assert kept == {f"{number}": number for number in range(SLIDES) if number != 13}
    assert list(joined.records) == [slide.slide_id for slide in shares.slides]
    assert str(joined.records["13"]) == "unlucky"


def test_a_share_that_is_damaged_in_the_middle_is_named_by_the_join_and_made_again(tmp_path: Path) -> None:
    shares, _ = shares_in(tmp_path)
    paths = [shares.write(Share(number, 2), Threads()).path for number in (1, 2)]
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[:4] + bytes(1000) + content[1004:])
    with pytest.raises(MissingSharesError, match=r"1 of 2 shares are missing in .*: 2; 2/2 .*not a share of `count`"):
        shares.join()
    assert not shares.write(Share(1, 2), Threads()).new
    assert shares.write(Share(2, 2), Threads()).new
    assert len(shares.join().records) == SLIDES


def test_an_engine_reports_every_slide_and_gives_bounded_batches_that_know_their_problems(tmp_path: Path) -> None:
    shares, work = shares_in(tmp_path)
    reported: list[tuple[int, int]] = []
    batches = Threads()(work, shares.slides[: BATCH + 3], lambda *counts: reported.append(counts))
    first, last = batches
    assert reported == [(number + 1, BATCH + 3) for number in range(BATCH + 3)]
    assert (len(first), len(last)) == (BATCH, 3)
    assert (problems_in(first), problems_in(last)) == (1, 0)
    unusable = [
        Done(f"{number}", "", (), Evidence(f"{number}", reason)) for number, reason in enumerate(["", "gone", ""])
    ]
    (batch,) = done_batches([*unusable, Done("3", "", (), DoctogresError("unlucky"))], Evidence)
    assert problems_in(batch) == 2
