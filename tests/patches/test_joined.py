"""Several parts read as one array."""

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doctogres.patches import joined
from doctogres.patches.joined import JoinedPixels, read_ahead
from doctogres.patches.parts import Part, Piece, header

SIZE, COUNTS = 4, (3, 1, 5)
WHOLE = np.random.default_rng(0).integers(0, 256, (sum(COUNTS), SIZE, SIZE, 3), np.uint8)


@pytest.fixture
def parts(tmp_path: Path) -> list[Part]:
    ends = np.cumsum(COUNTS)
    made = []
    for number, (end, count) in enumerate(zip(ends, COUNTS, strict=True)):
        part = Part(tmp_path / f"{number}.npy", (Piece("s", 0, count),), SIZE)
        part.path.write_bytes(header(count, SIZE) + WHOLE[end - count : end].tobytes())
        made.append(part)
    return made


def in_order(parts: list[Part]) -> JoinedPixels:
    return JoinedPixels(parts, np.arange(len(WHOLE)), SIZE)


@pytest.mark.parametrize(
    "index",
    [
        0, -1, np.int64(4), slice(None), slice(2, 7), slice(8, 1, -3), slice(5, 5), [], [3], [8, 0, 3, 3, 2],
        np.array([-1, 4]), np.arange(9) % 2 == 0, np.array([[0, 8], [3, 4]]),
    ],
    ids=str,
)  # fmt: skip
def test_an_index_means_what_it_means_to_numpy(parts: list[Part], index: Any) -> None:
    expected, given = WHOLE[index], in_order(parts)[index]
    assert given.dtype == np.uint8
    assert given.shape == expected.shape
    assert (given == expected).all()


@pytest.mark.parametrize("index", [9, -10, [0, 9], (0, 0), np.ones(8, bool)], ids=str)
def test_an_index_outside_is_refused_as_numpy_refuses_it(parts: list[Part], index: object) -> None:
    with pytest.raises(IndexError):
        in_order(parts)[index]


def test_it_has_the_shape_and_the_content_of_the_whole(parts: list[Part]) -> None:
    pixels = in_order(parts)
    assert (pixels.shape, pixels.dtype, pixels.ndim, pixels.nbytes) == (WHOLE.shape, WHOLE.dtype, 4, WHOLE.nbytes)
    assert len(pixels) == len(WHOLE)
    assert np.array_equal(pixels, WHOLE)
    assert np.array_equal(np.asarray(pixels, np.float32), WHOLE.astype(np.float32))
    assert np.array_equal(list(pixels), WHOLE)


def test_the_patches_may_lie_in_another_order_than_the_rows(parts: list[Part]) -> None:
    places = np.random.default_rng(1).permutation(len(WHOLE))
    assert np.array_equal(JoinedPixels(parts, places, SIZE)[2:8], WHOLE[places][2:8])


def test_no_part_is_opened_before_it_is_read(parts: list[Part]) -> None:
    pixels = in_order(parts)
    parts[1].path.unlink()
    assert np.array_equal(pixels[[0, 8]], WHOLE[[0, 8]])
    with pytest.raises(FileNotFoundError, match=r"1\.npy"):
        pixels[3]


def test_more_parts_than_may_be_open_are_read_all_the_same(parts: list[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "MOST_OPEN", 1)
    pixels = in_order(parts)
    rows = np.random.default_rng(2).integers(0, len(WHOLE), 40)
    assert np.array_equal(pixels[rows], WHOLE[rows])


def test_the_kernel_is_asked_for_the_patches_of_a_batch_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, count = 64, 40
    part = Part(tmp_path / "part.npy", (Piece("s", 0, count),), size)
    part.path.write_bytes(header(count, size) + bytes(part.nbytes))
    asked: list[tuple[int, int]] = []

    class Memory(mmap.mmap):
        def madvise(self, option: int, start: int = 0, length: int = 0) -> None:
            super().madvise(option, *(start, length) * (option == mmap.MADV_WILLNEED))
            if option == mmap.MADV_WILLNEED:
                asked.append((start, start + length))

    monkeypatch.setattr(mmap, "mmap", Memory)
    JoinedPixels([part], np.arange(count), size)[[3, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 39]]
    patch, begin = size * size * 3, len(header(count, size))
    pages = {page for start, stop in asked for page in range(start // mmap.PAGESIZE, -(-stop // mmap.PAGESIZE))}
    expected = set[int]()
    for first, last in ((3, 4), (20, 30), (39, 40)):
        start, stop = begin + first * patch, begin + last * patch
        expected |= set(range(start // mmap.PAGESIZE, -(-stop // mmap.PAGESIZE)))
    assert pages == expected
    assert all(start % mmap.PAGESIZE == 0 and stop - start <= 128 * 1024 for start, stop in asked)


def test_the_next_batch_is_asked_for_while_one_is_worked_on(parts: list[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[tuple[str, list[int]]] = []
    pixels = in_order(parts)
    monkeypatch.setattr(JoinedPixels, "ask", lambda self, rows: happened.append(("asked", rows.tolist())))
    batches = [np.array(rows) for rows in ([0, 2, 4], [1, 3, 8], [5, 6])]
    for batch in read_ahead(pixels, iter(batches), share=slice(1, None, 2)):
        happened.append(("worked", batch.tolist()))
    assert happened == [
        ("asked", [3]), ("worked", [0, 2, 4]), ("asked", [6]), ("worked", [1, 3, 8]), ("worked", [5, 6]),
    ]  # fmt: skip


def test_an_array_in_memory_is_passed_by(parts: list[Part]) -> None:
    batches: Iterator[np.ndarray] = iter([np.array([1]), np.array([2])])
    assert [batch.tolist() for batch in read_ahead(WHOLE, batches)] == [[1], [2]]
    assert list(read_ahead(in_order(parts), [])) == []
