"""Spark as an engine: addresses in, records out, the same work per slide as in the threads of this process.

Executors know nothing of MLflow and write nothing but files named after their content: whatever a killed, repeated or
speculative task has done is lost with its rows, and a slide counts once. They are sent this package, so that all of them run
the same code.
"""

import os
import re
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

import doctogres
from doctogres.errors import DoctogresError, ParameterError
from doctogres.files import digest_of
from doctogres.records.slide import Slide, Work, done, done_batches, done_schema, unreported

TASKS_PER_CORE: Final = 8  # so that no core waits long for the last one
FEWEST, MOST = 8, 256  # slides in a task: one costs a tenth of a second besides, and is lost with its worker
SLIDES_PER_JOB: Final = 4096  # whose records Java holds at a time: 10 KB each in `clean`; more where many cores
ROUNDS: Final = 4  # would have fewer tasks each than this: all wait for the last one of a job
ID: Final = "id"  # Spark's name for the numbers of a range
ROWS: Final = "rows"
RAISED: Final = re.compile(r"(?!org\.|java)([\w.]+(?:Error|Exception)): (.+)")
STANDALONE: Final = "spark://"
SECONDS: Final = 10  # for a master to answer
SETTINGS: Final = {
    "spark.ui.enabled": "false",  # it would listen to all
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
}


class SparkError(DoctogresError):
    """Spark is missing, cannot be reached, or has given up."""

    code = "spark"


@dataclass(frozen=True)
class Spark:
    """The engine; call it with work and slides for their records, in order, in batches.

    Attributes:
        master: `local[*]` or `spark://HOST:7077`.
        hashed: whether the slides' files are hashed, too.
        together: number of slides in a task; None for `slides_per_task`.
    """

    master: str
    hashed: bool = True
    together: int | None = None

    def __call__(
        self, work: Work, slides: Sequence[Slide], report: Callable[[int, int], None] = unreported
    ) -> Iterator[pa.RecordBatch]:
        """Yields what became of every slide, in order, as batches of `done_schema`.

        Raises:
            SparkError: a task failed on several workers, or the cluster cannot be used.
            ParameterError: pyspark or Java is missing.
        """
        _check_installed()
        _check_reached(self.master)
        with _session(self.master, work.model) as session:
            cores = session.sparkContext.defaultParallelism
            size = self.together or slides_per_task(len(slides), cores)
            tasks = [slides[start : start + size] for start in range(0, len(slides), size)]
            at_once = tasks_per_job(size, cores)
            for start in range(0, len(tasks), at_once):
                yield from _job(session, work, tasks[start : start + at_once], hashed=self.hashed)
                report(min(len(slides), (start + at_once) * size), len(slides))


def slides_per_task(slides: int, cores: int) -> int:
    """How many slides a task of Spark's has: few enough that all cores have work to the end, as many as that allows."""
    return min(MOST, max(FEWEST, slides // (TASKS_PER_CORE * cores)))


def tasks_per_job(size: int, cores: int) -> int:
    """How many tasks of this size are given to Spark together."""
    return max(SLIDES_PER_JOB // size, ROUNDS * cores)


def _job(session: Any, work: Work, tasks: Sequence[Sequence[Slide]], *, hashed: bool) -> Iterator[pa.RecordBatch]:
    from pyspark.errors import PySparkException

    sent = session.sparkContext.broadcast(tasks)

    def run(numbers: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import SparkFiles, TaskContext

        context = TaskContext.get()
        own = replace(work, model=Path(SparkFiles.get(_place(work.model)))) if work.model else work  # type: ignore[type-var]
        for number in (number for batch in numbers for number in batch[ID].to_pylist()):
            made = done(own, sent.value[number], workers=context.cpus() if context else 1, hashed=hashed)
            yield pa.RecordBatch.from_pydict(
                {ROWS: [_packed(done_batches(made, work.record), done_schema(work.record))]}
            )

    try:
        numbers = session.range(0, len(tasks), 1, len(tasks))  # a task of Spark's for each
        found = numbers.mapInArrow(run, f"{ROWS} binary").toArrow()
    except PySparkException as error:
        raise SparkError(f"engine=spark: {_reason(error)}") from error
    batches = [batch for rows in found[ROWS] for batch in pa.ipc.open_stream(rows.as_buffer())]
    slides = [slide.slide_id for task in tasks for slide in task]
    made = [slide for batch in batches for slide in batch["slide_id"].to_pylist()]
    if made != slides:
        raise SparkError(f"engine=spark: {len(made)} records of {len(slides)} slides came back; run the command again")
    return iter(batches)


def _packed(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> bytes:
    """A task's rows as one value of Spark's: Java would take each column of each row into its own form and back."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as stream:
        for batch in batches:
            stream.write_batch(batch)
    return bytes(sink.getvalue())


@contextmanager
def _session(master: str, model: Path | None) -> Iterator[Any]:
    """The session of this process, or one that ends with the block."""
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if master.startswith("local"):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # no port of it listens to other machines
    before = SparkSession.getActiveSession()
    builder = SparkSession.builder.appName("doctogres").master(master)
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas")  # which is not used here
    try:
        session = before or builder.getOrCreate()
    except (PySparkException, _java_error()) as error:
        raise SparkError(
            f"engine=spark: no session with {master} could be opened: {_reason(error)}; Spark 4 needs Java 17"
        ) from error
    try:
        with tempfile.TemporaryDirectory() as folder:
            package = Path(doctogres.__file__).parent
            session.sparkContext.addPyFile(
                shutil.make_archive(f"{folder}/doctogres", "zip", package.parent, package.name)
            )
            if model:  # an executor fetches and unpacks it once
                archive = shutil.make_archive(f"{folder}/model", "zip", model)
                session.sparkContext.addArchive(f"{archive}#{_place(model)}")
            yield session
    finally:
        if before is None:
            session.stop()


def _place(model: Path) -> str:
    """The folder in which an executor finds a model."""
    return f"model-{digest_of(str(model))}"


def _check_installed() -> None:
    try:
        import pyspark  # noqa: F401
    except ModuleNotFoundError as error:
        raise ParameterError(
            "engine=spark: Spark is not installed; run `pip install pyspark` (the extra `spark`)"
        ) from error
    if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
        raise ParameterError(
            "engine=spark: there is no Java on this machine; install Java 17 (`apt-get install openjdk-17-jre-headless`), or "
            "set JAVA_HOME to its folder"
        )


def _check_reached(master: str) -> None:
    """Refuses a master that nobody answers for: Spark tries for a minute."""
    if not master.startswith(STANDALONE):
        return
    problem = ""
    for address in master.removeprefix(STANDALONE).split(","):
        try:
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), timeout=SECONDS).close()
            return
        except (OSError, ValueError) as error:
            problem = str(error)
    raise SparkError(
        f"engine=spark: no master of Spark answers at spark_master={master} ({problem}); give the address that its page shows"
    )


def _java_error() -> type[Exception]:
    from py4j.protocol import Py4JError

    error: type[Exception] = Py4JError
    return error


def _reason(error: Exception) -> str:
    """The line of a long message that says what went wrong: the last error of Python's in it, else the first of Java's."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if raised := [found for line in lines if (found := RAISED.fullmatch(line))]:
        name, text = raised[-1].groups()
        return str(text if name.startswith("doctogres.") else raised[-1][0])
    return next((line.removeprefix(": ") for line in lines if line.startswith(": ")), lines[0])
