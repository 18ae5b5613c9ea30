"""Mapping over slides: what it does to the process."""

from collections.abc import Iterator
from contextlib import ExitStack

import cv2
import pytest

from doctogres.engine import map_slides, one_cv2_thread


def test_cv2_has_its_threads_again_when_the_last_request_is_done() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(3)
    try:
        first, second = ExitStack(), ExitStack()
        first.enter_context(one_cv2_thread())
        second.enter_context(one_cv2_thread())
        first.close()  # the first to come is the first to go
        assert cv2.getNumThreads() == 1
        second.close()
        assert cv2.getNumThreads() == 3
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize("workers", [1, 3])
def test_slides_are_fetched_only_a_little_ahead_of_the_one_that_is_used(workers: int) -> None:
    """A cohort larger than the memory passes through: what is fetched and not yet used stays bounded."""
    fetched: list[int] = []

    def slides() -> Iterator[int]:
        for number in range(60):
            fetched.append(number)
            yield number

    for used, result in enumerate(map_slides(lambda number: 10 * number, slides(), workers=workers), 1):
        assert result == 10 * (used - 1), "the order given"
        assert len(fetched) <= used + 2 * workers
    assert len(fetched) == 60


def test_an_error_comes_at_its_slides_turn_and_the_rest_is_left_alone() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise ValueError("slide 1")
        return number

    results = map_slides(work, range(100), workers=2)
    assert next(results) == 0
    with pytest.raises(ValueError, match="slide 1"):
        next(results)
    assert len(begun) <= 6
