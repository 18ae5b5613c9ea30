"""Several parts read as one array."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from doctogres.patches import joined
from doctogres.patches.joined import JoinedPixels
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
