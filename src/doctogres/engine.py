"""Maps a function over slides, in order, with bounded memory.

The work per slide is cv2, numpy and hashing, which release the global interpreter lock, so threads use every core
without the start-up time (seconds of imports) and the copying that processes would need.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
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
) -> Generator[Result]:
    """Yields `function(slide)` for every slide, in the order given.

    At most `2 * workers` slides are in flight, so that memory does not grow with the cohort. An exception in
    `function` is raised when that slide's result is due; slides that have not been started are then skipped.

    Args:
        function: called in several threads at once.
        slides: what to map over; consumed lazily.
        workers: number of threads, one per core by default; 1 uses the calling thread.
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
_singles: list[int] = []  # cv2's original number of threads, once for every caller inside `one_cv2_thread`


@contextmanager
def one_cv2_thread() -> Iterator[None]:
    """Limits cv2 to one thread per picture, because our own threads already use every core.

    The number of threads is a property of the process: the last caller to leave restores it.
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
