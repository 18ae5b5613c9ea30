"""Requests that share the networks: whose turn it is, what fails with whom, and how much may wait."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from doctogres.errors import DoctogresError
from doctogres.model.answer import CutSlide, SlideAnswer
from doctogres.model.classifier import SlideClassifier
from doctogres.model.ensemble import BATCH, Ensemble
from doctogres.model.scheduling import Job, OverdueError, Scheduler
from tests.serving.drawn_requests import drawn

LONG = 20.0  # seconds; reached only by a test that fails


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as threads:
        yield threads


class Passes:
    """The forward passes of several jobs in the order in which they ran; the first waits until it may go on."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool, self.scheduler, self.order = pool, Scheduler(), list[str]()
        self.go_on, self.began, self.jobs = threading.Event(), threading.Event(), list[Future[None]]()

    def run(self, name: str, *passes: int) -> None:
        job = Job(self.scheduler)
        with job.classifying(sum(passes)):
            for patches in passes:
                job.next_pass(patches)
                self.order.append(name)
                self.began.set()
                assert self.go_on.wait(LONG)

    def start(self, name: str, *passes: int) -> None:
        """Returns when the job runs or stands in line."""
        self.jobs.append(self.pool.submit(self.run, name, *passes))
        assert self.began.wait(LONG)
        until(lambda: len(self.scheduler.networks) == len(self.jobs) - 1)

    def finish(self) -> list[str]:
        self.go_on.set()
        for job in self.jobs:
            job.result(LONG)
        return self.order


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(int(LONG / 0.01)):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail("it did not come so far")


def test_a_small_request_is_answered_before_a_large_one_that_is_under_way(pool: ThreadPoolExecutor) -> None:
    passes = Passes(pool)
    passes.start("large", *[16] * 12)
    passes.start("small", 2)
    passes.start("middle", 16, 9)
    assert passes.finish() == ["large", "small", "middle", "middle", *["large"] * 11]


def test_of_equal_requests_the_first_to_come_is_the_first_to_be_answered(pool: ThreadPoolExecutor) -> None:
    passes = Passes(pool)
    for name in "01234":
        passes.start(name, 16, 16)
    assert passes.finish() == [name for name in "01234" for _ in range(2)]


def test_a_large_request_does_not_wait_for_ever_while_small_ones_keep_coming() -> None:
    scheduler, large = Scheduler(), 64
    late, small, order = Job(scheduler), list[int](), list[int]()
    with ThreadPoolExecutor(1) as pool, Job(scheduler).classifying(1):
        blocking = Job(scheduler)
        with blocking.classifying(1):
            blocking.next_pass(1)

            def run() -> None:
                with late.classifying(large):
                    late.next_pass(large)
                    order.append(len(small))

            waiting = pool.submit(run)
            until(lambda: len(scheduler.networks) == 1)
            for number in range(10 * large):  # a small request every time that the networks are free
                small.append(number)
                blocking._due = scheduler.networks.due(1)
                blocking.next_pass(1)
                if order:
                    break
            waiting.result(LONG)
    assert order[0] <= large + 1


class Counting(nn.Module):
    """A network that tells its batches, and can be held up or fail; black patches are those of the bad slide."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.batches = nn.Linear(3, 3), list[int]()
        self.began, self.go_on = threading.Event(), threading.Event()

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(patches))
        self.began.set()
        assert self.go_on.wait(LONG)
        if (patches == patches.min()).all():
            raise ValueError("the network fails on this slide")
        logits: torch.Tensor = self.layer(patches.mean((2, 3)))
        return logits


@pytest.fixture
def counting(classifier: SlideClassifier) -> tuple[SlideClassifier, Counting]:
    network = Counting()
    return replace(classifier, networks=(Ensemble([network]).eval(),)), network


def test_a_slide_of_two_patches_overtakes_one_of_many(
    counting: tuple[SlideClassifier, Counting], pool: ThreadPoolExecutor
) -> None:
    classifier, network = counting
    scheduler = Scheduler()
    large = classifier.cut(*drawn(0, lesions=4, speck=False))
    large = replace(
        large,
        boxes={"regions": np.tile(large.regions, (60, 1))},
        pixels={"regions": np.tile(large.pixels["regions"], (60, 1, 1, 1))},
    )
    small = classifier.cut(*drawn(1, lesions=2, speck=False))
    many = pool.submit(lambda: list(classifier.answers([large], Job(scheduler))))
    assert network.began.wait(LONG)
    few = pool.submit(lambda: list(classifier.answers([small], Job(scheduler))))
    until(lambda: len(scheduler.networks) == 1)
    network.go_on.set()
    assert [len(many.result(LONG)), len(few.result(LONG))] == [1, 1]
    full, rest = divmod(large.size, BATCH)
    assert network.batches == [BATCH, small.size, *[BATCH] * (full - 1), *[rest] * (rest > 0)]
    assert scheduler.held == 0


def test_a_failure_ends_its_own_request_only(
    counting: tuple[SlideClassifier, Counting], pool: ThreadPoolExecutor
) -> None:
    classifier, network = counting
    network.go_on.set()
    scheduler = Scheduler()
    slides = [classifier.cut(*drawn(seed)) for seed in range(12)]
    black = {"regions": np.zeros_like(slides[0].pixels["regions"])}
    asked = [replace(slide, pixels=black) if seed % 3 == 0 else slide for seed, slide in enumerate(slides)]
    asked = [replace(slide, boxes=slides[0].boxes) if seed % 3 == 0 else slide for seed, slide in enumerate(asked)]

    def answered(slide: CutSlide) -> list[SlideAnswer | DoctogresError]:
        return list(classifier.answers([slide], Job(scheduler)))

    futures = [pool.submit(answered, slide) for slide in asked]
    for seed, future in enumerate(futures):
        if seed % 3 == 0:
            with pytest.raises(ValueError, match="fails on this slide"):
                future.result(LONG)
        else:
            (found,), expected = future.result(LONG), classifier.classify(*drawn(seed))
            assert isinstance(found, SlideAnswer)
            np.testing.assert_array_equal(found.probabilities, expected.probabilities)
    assert (scheduler.held, len(scheduler.networks), len(scheduler.readers)) == (0, 0, 0)


def test_who_waits_too_long_leaves_the_line_and_the_others_go_on(pool: ThreadPoolExecutor) -> None:
    scheduler = Scheduler(readers=1)
    first, late, next_one = Job(scheduler), Job(scheduler, 0.2), Job(scheduler)
    with (
        first.reading(),
        pytest.raises(OverdueError, match=r"longer than the limit of 0\.2 s.*--timeout"),
        late.reading(),
    ):
        pytest.fail("two read at the same time")
    late = Job(scheduler, 0.2)
    with first.classifying(1):
        first.next_pass(1)
        with pytest.raises(OverdueError), late.classifying(1):
            late.next_pass(1)
        waiting = pool.submit(lambda: run_alone(next_one))
        until(lambda: len(scheduler.networks) == 1)
    assert waiting.result(LONG)
    assert len(scheduler.networks) == 0


def run_alone(job: Job) -> bool:
    with job.classifying(1):
        job.next_pass(1)
    return True


def test_a_request_whose_time_is_over_gives_the_networks_back() -> None:
    scheduler = Scheduler()
    late = Job(scheduler, 0.1)
    with pytest.raises(OverdueError), late.classifying(1000):
        while True:
            late.next_pass(1)
    assert run_alone(Job(scheduler, LONG))


def test_an_interrupt_while_waiting_leaves_no_place_that_nobody_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler()
    holder, interrupted = Job(scheduler), Job(scheduler)

    def interrupt(_: threading.Event, __: float) -> bool:
        raise KeyboardInterrupt

    with holder.classifying(1):
        holder.next_pass(1)
        with monkeypatch.context() as patcher, pytest.raises(KeyboardInterrupt), interrupted.classifying(1):
            patcher.setattr(threading.Event, "wait", interrupt)
            interrupted.next_pass(1)
    with monkeypatch.context() as patcher, pytest.raises(KeyboardInterrupt), interrupted.classifying(1):
        patcher.setattr(threading.Event, "wait", interrupt)  # this time it was called already
        interrupted.next_pass(1)
    assert run_alone(Job(scheduler, LONG))


def test_while_enough_patches_wait_only_those_that_have_some_read_more(pool: ThreadPoolExecutor) -> None:
    scheduler = Scheduler(readers=2, waiting_bytes=100)
    rich, poor = Job(scheduler, LONG), Job(scheduler, LONG)
    read = threading.Event()

    def read_one() -> None:
        with poor.reading():
            read.set()

    with rich.classifying(1):
        rich.hold(100)
        waiting = pool.submit(read_one)
        until(lambda: len(scheduler.readers) == 1)
        with rich.reading():  # or nobody would ever classify what waits
            assert not read.is_set()
    waiting.result(LONG)
    assert read.is_set()


def test_a_small_slide_is_read_before_large_ones_that_wait(pool: ThreadPoolExecutor) -> None:
    scheduler, order = Scheduler(readers=1), list[int]()

    def read(size: int) -> None:
        with Job(scheduler, size=size).reading(size):
            order.append(size)

    with Job(scheduler).reading():
        waiting = []
        for size in (5_000_000, 4_000_000, 30_000):
            waiting.append(pool.submit(read, size))
            until(lambda: len(scheduler.readers) == len(waiting))
    for future in waiting:
        future.result(LONG)
    assert order == [30_000, 4_000_000, 5_000_000]


def test_no_more_slides_are_read_at_once_than_allowed(pool: ThreadPoolExecutor) -> None:
    scheduler, count, highest = Scheduler(readers=3), [], []
    full = threading.Barrier(3)

    def read(number: int) -> None:
        with Job(scheduler).reading():
            count.append(number)
            highest.append(len(count))
            full.wait(LONG)  # three do read at the same time
            count.remove(number)
            full.wait(LONG)

    list(pool.map(read, range(12)))
    assert max(highest) == 3


def test_slides_that_are_never_classified_do_not_wait_for_ever(
    counting: tuple[SlideClassifier, Counting],
) -> None:
    classifier, _ = counting
    scheduler = Scheduler()

    def slides() -> Iterator[object]:
        yield classifier.cut(*drawn(0))
        assert scheduler.held > 0
        raise ValueError("the next slide cannot be used")

    with pytest.raises(ValueError, match="cannot be used"):
        list(classifier.answers(slides(), Job(scheduler)))  # type: ignore[arg-type]
    assert scheduler.held == 0
