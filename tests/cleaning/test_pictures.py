"""What waits on the disk: thumbnails, of which the audit page shows only some, and the hashes of pictures."""

import pickle
import tracemalloc

import numpy as np
import pytest

from benchmarks.near_duplicates import made_hashes
from doctogres.cleaning.duplicates import MAX_EXHAUSTIVE, PictureHash, near_duplicates
from doctogres.cleaning.evidence import Evidence
from doctogres.cleaning.outcome import _Chosen
from doctogres.cleaning.pictures import Pictures


def test_each_slide_has_its_own_and_none_stays_in_the_measurements() -> None:
    pictures = Pictures()
    taken = [pictures.take(Evidence(name, thumbnail=name.encode() * 3)) for name in ("a", "bb")]
    assert pictures.thumbnail("a") == b"aaa"
    taken.append(pictures.take(Evidence("c")))
    assert [pictures.thumbnail(name) for name in ("bb", "a", "c", "d")] == [b"bbbbbb", b"aaa", None, None]
    assert [one.thumbnail for one in taken] == [None] * 3


def test_a_hash_comes_back_to_the_bit_and_is_no_longer_in_memory() -> None:
    random, pictures = np.random.default_rng(3), Pictures()
    given = {
        name: PictureHash(
            random.normal(size=(2, 16, 16)).astype(np.float16),
            *(random.integers(0, 256, shape, np.uint8) for shape in ((2, 32, 32), (2, 128), (2, 128))),
        )
        for name in "abc"
    }
    taken = [pictures.take(Evidence(name, picture_hash=one, thumbnail=b"jpeg")) for name, one in given.items()]
    assert [one.picture_hash for one in taken] == [None] * 3
    assert list(pictures) == list("abc")
    for name in "cab":
        for field, array in vars(given[name]).items():
            np.testing.assert_array_equal(getattr(pictures[name], field), array, strict=True)
    assert "d" not in pictures


@pytest.mark.parametrize("slides", [MAX_EXHAUSTIVE // 2, 2 * MAX_EXHAUSTIVE])
def test_near_copies_are_found_among_hashes_on_the_disk_with_a_fraction_of_them_in_memory(slides: int) -> None:
    prints, _ = made_hashes(slides, 0.1)
    names, pictures = [f"{number}" for number in range(slides)], Pictures()
    for name, one in zip(names, prints, strict=True):
        pictures.take(Evidence(name, picture_hash=one))
    expected, content = near_duplicates(prints), len(pickle.dumps(prints))
    del prints
    tracemalloc.start()
    found = near_duplicates(_Chosen(pictures, names))
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == expected
    assert slides < MAX_EXHAUSTIVE or most < content
