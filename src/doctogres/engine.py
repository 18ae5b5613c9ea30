"""Map a function over slides, in order, with bounded memory.

The work per slide is cv2, numpy and hashing, which release the interpreter lock, so threads use every core without
the start-up (seconds of imports) and the copying that processes would cost.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

import cv2

Slide = TypeVar("Slide")
Result = TypeVar("Result")


def default_workers() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_slides(
    function: Callable[[Slide], Result], slides: Iterable[Slide], *, workers: int | None = None
) -> Iterator[Result]:
    """Yields `function(slide)` for every slide, in the order given.

    At most `2 * workers` slides are in flight, so that memory does not grow with the cohort. An exception in
    `function` reaches the caller at that slide's turn; the slides not yet started are then left alone.

    Args:
        function: called in several threads at once.
        slides: what to map over; consumed lazily.
        workers: number of threads, all cores by default; 1 is the caller's own.
    """
    count = workers or default_workers()
    if count == 1:
        with one_cv2_thread():
            yield from map(function, slides)
        return
    pending: deque[Future[Result]] = deque()
    slides = iter(slides)
    with ThreadPoolExecutor(count) as pool, one_cv2_thread():
        try:
            pending.extend(pool.submit(function, slide) for slide in islice(slides, 2 * count))
            while pending:
                result = pending.popleft().result()
                pending.extend(pool.submit(function, slide) for slide in islice(slides, 1))
                yield result
        finally:
            for future in pending:
                future.cancel()


_single = threading.Lock()
_singles: list[int] = []  # cv2's own number of threads, once for everybody who wants one thread


@contextmanager
def one_cv2_thread() -> Iterator[None]:
    """Keeps cv2 from dividing a picture among threads of its own, which would only get into each other's way here.

    The number is the process's: the last of those who wanted one thread at the same time brings it back.
    """
    with _single:
        _singles.append(_singles[0] if _singles else cv2.getNumThreads())
        cv2.setNumThreads(1)
    try:
        yield
    finally:
        with _single:
            threads = _singles.pop()
            if not _singles:
                cv2.setNumThreads(threads)
