"""Mapping over slides: what it does to the process."""

from contextlib import ExitStack

import cv2

from doctogres.engine import one_cv2_thread


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
