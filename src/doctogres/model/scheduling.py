"""Who comes next when several requests ask at once: for reading a slide, and for a forward pass of the networks.

There is no thread here that could die: a request runs its own passes, one at a time among all requests, and whoever leaves
calls the next. So a pass has patches of one request only, and an answer does not depend on who else asks.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from doctogres.engine import default_workers
from doctogres.errors import DoctogresError

WAITING_BYTES: Final = 512 * 2**20  # of patches that wait for the networks: 3,500 of 224 px


class OverdueError(DoctogresError):
    """The request has taken longer than its time limit, so nobody waits for its answer any more."""

    code = "timeout"


class Scheduler:
    """The readers and the networks of a process, which its requests share.

    A request that asks for `n` patches is due when `n` patches, of any request, have been classified since; the one that is
    due first gets the next pass. In the same way, by bytes of its files, it gets its turn to read a slide. So a small request
    overtakes a large one, but not for ever (earliest due date by total work content: Conway, Journal of Industrial
    Engineering 16, 1965). With later due dates, large requests wait longer: benchmarks/README.md.

    Args:
        readers: slides that are read at the same time, by default one per core.
        waiting_bytes: while patches of this size wait for the networks, only requests that have some of them read slides.
    """

    def __init__(self, *, readers: int | None = None, waiting_bytes: int = WAITING_BYTES):
        self.readers = _Line(readers or default_workers(), lambda job: job.held > 0 or self.held < waiting_bytes)
        self.networks = _Line(1, lambda _: True)
        self.held = 0  # bytes of patches that wait
        self._lock = threading.Lock()

    def hold(self, size: int) -> None:
        """Adds to the bytes of patches that wait; those who may read then do so."""
        with self._lock:
            self.held += size
        self.readers.call()


class Job:
    """A request; `waited` are the seconds that its networks' passes had to wait.

    Args:
        scheduler: whose readers and networks it uses.
        seconds: its time limit from now on; none by default.
        size: bytes of all files that it reads.
    """

    def __init__(self, scheduler: Scheduler, seconds: float | None = None, *, size: int = 0):
        self._scheduler, self._seconds, self._began = scheduler, seconds, time.monotonic()
        self._read_due, self._due, self._has_networks = scheduler.readers.due(size), 0, False
        self.held, self.waited = 0, 0.0

    @contextmanager
    def reading(self, size: int = 0) -> Iterator[None]:
        """Waits until the request may read a slide of this many bytes; it does so in the block.

        Raises:
            OverdueError: its time is over.
        """
        readers = self._scheduler.readers
        readers.enter(self, self._read_due)
        readers.count(size)
        try:
            yield
        finally:
            readers.leave()

    def hold(self, size: int) -> None:
        """Says that patches of this many bytes wait for `classifying`."""
        self.held += size
        self._scheduler.hold(size)

    @contextmanager
    def classifying(self, patches: int) -> Iterator[None]:
        """For the passes of this many patches, which `next_pass` begins; afterwards the request holds no patches."""
        self._due = self._scheduler.networks.due(patches)
        try:
            yield
        finally:
            self._leave_networks()
            self.hold(-self.held)

    def next_pass(self, patches: int) -> None:
        """Waits until the request may run a pass of this many patches; it then has the networks until the next call.

        Raises:
            OverdueError: its time is over.
        """
        networks, began = self._scheduler.networks, time.perf_counter()
        if not self.seconds_left() or networks.has_one_before(self._due):
            self._leave_networks()
        if not self._has_networks:
            networks.enter(self, self._due)
            self._has_networks = True
        networks.count(patches)
        self.waited += time.perf_counter() - began

    def _leave_networks(self) -> None:
        if self._has_networks:
            self._has_networks = False
            self._scheduler.networks.leave()

    def seconds_left(self) -> float:
        """Until the time limit; at least 0."""
        limit = threading.TIMEOUT_MAX if self._seconds is None else self._seconds
        return max(0.0, self._began + limit - time.monotonic())

    def overdue(self) -> OverdueError:
        """What the request gets when its time is over."""
        return OverdueError(
            f"the request took longer than the limit of {self._seconds:g} s; send fewer slides at once, or start the server "
            "with a longer --timeout"
        )


@dataclass(eq=False)
class _Place:
    job: Job
    due: int
    called: threading.Event = field(default_factory=threading.Event)


class _Line:
    """Lets a number of jobs in at a time; the next is the one that may enter and is due first."""

    def __init__(self, free: int, may_enter: Callable[[Job], bool]):
        self._free, self._may_enter = free, may_enter
        self._done = 0  # work: the clock of the due dates
        self._lock = threading.Lock()
        self._waiting: list[_Place] = []

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def due(self, work: int) -> int:
        """When a request for this much work is due that comes now."""
        return self._done + work

    def count(self, work: int) -> None:
        with self._lock:
            self._done += work

    def enter(self, job: Job, due: int) -> None:
        """Waits until it is the job's turn.

        Raises:
            OverdueError: the job's time is over.
        """
        if not job.seconds_left():
            raise job.overdue()
        place = _Place(job, due)
        with self._lock:
            self._waiting.append(place)
        self.call()
        interrupted = True
        try:
            called = place.called.wait(job.seconds_left())
            interrupted = False
        finally:  # somebody interrupts a notebook: nobody must wait for this place
            if interrupted and not self._withdrawn(place):
                self.leave()
        if not called and self._withdrawn(place):
            raise job.overdue()

    def leave(self) -> None:
        with self._lock:
            self._free += 1
        self.call()

    def has_one_before(self, due: int) -> bool:
        with self._lock:
            return any(place.due < due for place in self._waiting)

    def call(self) -> None:
        """Calls those who may enter."""
        with self._lock:
            while self._free and (ready := [place for place in self._waiting if self._may_enter(place.job)]):
                first = min(ready, key=lambda place: place.due)
                self._waiting.remove(first)
                self._free -= 1
                first.called.set()

    def _withdrawn(self, place: _Place) -> bool:
        """Takes the place out of the line; false if it has been called."""
        with self._lock:
            waits = place in self._waiting
            if waits:
                self._waiting.remove(place)
            return waits
