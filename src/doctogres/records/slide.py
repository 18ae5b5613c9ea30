"""A slide as work gets it, and a record as work gives it back."""

import os
import platform
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, Self

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from doctogres.engine import map_slides
from doctogres.errors import DoctogresError
from doctogres.files import digest_of, file_digest
from doctogres.records.codec import arrow_type, from_row, to_row

BATCH: Final = 256  # rows of Arrow that are in memory at a time: 10 KB each in `clean`


def unreported(done: int, total: int) -> None:
    """Reports no progress."""


@dataclass(frozen=True, slots=True)  # all of a cohort are in memory
class HashedFile:
    """A file's path below the cohort's folder, and its MD5; empty where its disk failed."""

    name: str
    md5: str


@dataclass(frozen=True, slots=True)
class Slide:
    """A row of `slides.cohort.find_slides` or of a cohort table, without its label; `files` where they were read already."""

    slide_id: str
    image: str | None
    mask: str | None
    annotations: str
    mpp: float | None
    outcome: str
    reason: str
    files: tuple[HashedFile, ...] = ()

    @property
    def hashes(self) -> dict[str, str]:
        """The MD5 of its files, by path."""
        return {file.name: file.md5 for file in self.files}

    def with_hashes(self, hashes: Mapping[str, str]) -> Self:
        """The slide with those of its files whose MD5 is known, by path."""
        known = {name: hashes[name] for name in (self.image, self.mask) if name and name in hashes}
        return replace(self, files=tuple(HashedFile(name, md5) for name, md5 in known.items()))

    def readable(self, root: Path) -> list[str]:
        """Its files that can be opened."""
        folder, names = os.fspath(root), filter(None, (self.image, self.mask))
        paths = [(name, os.path.join(folder, name)) for name in names]  # a Path costs as much as asking the disk
        return [name for name, path in paths if os.path.isfile(path) and os.access(path, os.R_OK)]


def slides_of(table: pd.DataFrame) -> list[Slide]:
    """The slides of a table, in its order."""
    columns = ["slide_id", "image", "mask", "annotations", "mpp", "outcome", "reason"]
    rows = table[columns].astype(object)
    return [Slide(*row) for row in rows.where(rows.notna(), None).itertuples(index=False, name=None)]


class Work(Protocol):
    """What is done with slides in any process: a dataclass of settings and paths, which pickle can carry.

    Attributes:
        root: the folder of the slides.
        record: the dataclass of the result, see `codec`.
        model: a folder that it reads, too, which an engine brings to where the work is done; None for none.
    """

    @property
    def root(self) -> Path: ...
    @property
    def record(self) -> type[Any]: ...
    @property
    def model(self) -> Path | None: ...

    def __call__(self, slides: Iterable[Slide], *, workers: int | None = None) -> Iterator[Any]:
        """Yields a record for every slide, in order, or the DoctogresError that says why there is none."""
        ...


class Engine(Protocol):
    """Where work is done.

    Attributes:
        together: number of consecutive slides that are passed to the work in one call; None for all of them.
    """

    @property
    def together(self) -> int | None: ...

    def __call__(
        self, work: Work, slides: Sequence[Slide], report: Callable[[int, int], None] = ...
    ) -> Iterator[pa.RecordBatch]:
        """Yields what became of every slide, in order, as batches of `done_schema`; `report` as in `progress`."""
        ...


@dataclass(frozen=True)
class Done:
    """What became of a slide.

    Attributes:
        slide_id: its name.
        state: digest of its row and of the size and time of its files when they were read, see `state_of`.
        files: those that could be opened.
        record: what the work found, or the DoctogresError in its place.
    """

    slide_id: str
    state: str
    files: tuple[HashedFile, ...]
    record: Any

    def to_row(self, kind: type[Any]) -> dict[str, Any]:
        """The row of `done_schema`."""
        failed = isinstance(self.record, DoctogresError)
        return {
            "slide_id": self.slide_id,
            "state": self.state,
            "files": to_row(self.files, tuple[HashedFile, ...]),
            "code": self.record.code if failed else None,
            "error": str(self.record) if failed else None,
            "record": None if failed else to_row(self.record, kind),
        }

    @classmethod
    def from_row(cls, row: dict[str, Any], kind: type[Any]) -> "Done":
        """The reverse of `to_row`; an error has its code and its text, but not its class."""
        record = from_row(row["record"], kind) if row["error"] is None else _error(row["code"], row["error"])
        return cls(row["slide_id"], row["state"], from_row(row["files"], tuple[HashedFile, ...]), record)


def done_schema(kind: type[Any]) -> pa.Schema:
    """The columns of `Done` with records of this kind."""
    return pa.schema(
        [
            ("slide_id", pa.string()),
            ("state", pa.string()),
            ("files", arrow_type(tuple[HashedFile, ...])),
            ("code", pa.string()),
            ("error", pa.string()),
            ("record", arrow_type(kind)),
        ]
    )


def done_batches(made: Iterable[Done], kind: type[Any]) -> Iterator[pa.RecordBatch]:
    """Batches of at most BATCH rows of `done_schema`: a batch of one row takes several times its content."""
    rows, schema = (one.to_row(kind) for one in made), done_schema(kind)
    while batch := list(islice(rows, BATCH)):
        yield pa.RecordBatch.from_pylist(batch, schema)


def done_in(batches: Iterable[pa.RecordBatch], kind: type[Any]) -> Iterator[Done]:
    """The reverse of `done_batches`."""
    return (Done.from_row(row, kind) for batch in batches for row in batch.to_pylist())


def problems_in(batch: pa.RecordBatch) -> int:
    """In how many rows of `done_schema` there is no record, or one that says that the slide cannot be used: its `reason`."""
    failed, records = len(batch) - int(batch["error"].null_count), batch["record"]
    if records.type.get_field_index("reason") < 0:
        return failed
    return failed + sum(map(bool, pc.struct_field(records, "reason").to_pylist()))


def _error(code: str, text: str) -> DoctogresError:
    error = DoctogresError(text)
    error.code = code  # type: ignore[misc]  # a class's constant elsewhere
    return error


def done(work: Work, slides: Iterable[Slide], *, workers: int | None = None, hashed: bool = True) -> Iterator[Done]:
    """Does the work in threads and yields what became of each slide, in order; its files are hashed on the way.

    Raises:
        DoctogresError: the slides' folder is not on this machine.
    """
    if not work.root.is_dir():
        raise DoctogresError(
            f"{work.root} is not there on the machine {platform.node()}; put the slides on a disk that all machines share"
        )
    passed: deque[tuple[str, Slide]] = deque()

    def read() -> Iterator[Slide]:
        for state, slide in map_slides(lambda slide: _read(work.root, slide, hashed), slides, workers=workers):
            passed.append((state, slide))
            yield slide

    for record in work(read(), workers=workers):
        state, slide = passed.popleft()
        yield Done(slide.slide_id, state, slide.files, record)


@dataclass(frozen=True)
class Threads:
    """The engine of one machine: the threads of this process.

    Attributes:
        hashed: whether the slides' files are hashed, too.
    """

    hashed: bool = True
    together: ClassVar[int | None] = None

    def __call__(
        self, work: Work, slides: Sequence[Slide], report: Callable[[int, int], None] = unreported
    ) -> Iterator[pa.RecordBatch]:
        """See `done`."""
        return done_batches(self._reported(work, slides, report), work.record)

    def _reported(self, work: Work, slides: Sequence[Slide], report: Callable[[int, int], None]) -> Iterator[Done]:
        for number, one in enumerate(done(work, slides, hashed=self.hashed), 1):
            yield one
            report(number, len(slides))


def state_of(root: Path, slide: Slide) -> str:
    """A digest of all that the slide's record depends on, found out without reading its files."""
    folder, names = os.fspath(root), slide.readable(root)
    status = [
        (name, found.st_size, found.st_mtime_ns) for name in names for found in [os.stat(os.path.join(folder, name))]
    ]
    return digest_of(asdict(replace(slide, files=())), status)


def _read(root: Path, slide: Slide, hashed: bool) -> tuple[str, Slide]:
    """The slide, if wanted with its files' hashes, and its state before they were read: what changes them later is noticed."""
    state = state_of(root, slide)
    if not hashed:
        return state, slide
    return state, replace(slide, files=tuple(HashedFile(name, _md5(root / name)) for name in slide.readable(root)))


def _md5(path: Path) -> str:
    """The file's MD5; empty where its disk fails, which is one slide's misfortune and not that of all."""
    try:
        return file_digest(path, algorithm="md5", length=None)
    except DoctogresError:
        return ""
