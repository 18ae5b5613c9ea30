"""The shares of a stage as Parquet files in the workspace: written by any number of machines, joined by one.

    WORKSPACE/shards/STAGE-SLIDES/2-of-8-DIGEST.parquet

SLIDES is a digest of the slides' names, DIGEST one of the code, the settings, and the state of the share's slides (their rows,
and the sizes and times of their files). A file is there as a whole or not at all, and its name says all that its content depends on.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from doctogres.engine import map_slides
from doctogres.errors import CohortError, DoctogresError, MissingSharesError, UpstreamError, listed
from doctogres.files import digest_of
from doctogres.parquet import TableFile
from doctogres.progress import counted, reporter
from doctogres.records.share import Share, divided
from doctogres.records.slide import Engine, Slide, Work, done_in, done_schema, problems_in, state_of

FOLDER: Final = "shards"
STATE: Final = ("slide_id", "state")
FILE: Final = re.compile(r"(?P<number>\d+)-of-(?P<count>\d+)-[0-9a-f]{16}\.parquet")


@dataclass(frozen=True)
class Written:
    """A share that is there: its file, the number of its slides and of those with a problem, whether it was made just now."""

    path: Path
    slides: int
    problems: int
    new: bool = False


@dataclass(frozen=True)
class Joined:
    """All shares.

    Attributes:
        records: what was found out about every slide, or the DoctogresError in its place, by slide, in order.
        hashes: the MD5 of all files, by path.
        together: the slides that the work was given in one call, for every call.
    """

    records: dict[str, Any]
    hashes: dict[str, str]
    together: list[list[str]]


@dataclass
class _Tally:
    """Counts what is made while it passes."""

    states: set[tuple[str, str]] = field(default_factory=set)
    problems: int = 0

    def passing(self, made: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in made:
            self.states.update(zip(*(batch[column].to_pylist() for column in STATE), strict=True))
            self.problems += problems_in(batch)
            yield batch


@dataclass(frozen=True)
class Shares:
    """The shares of a stage.

    Attributes:
        workspace: the folder that all machines share.
        stage: its name.
        work: what is done with every slide.
        slides: all of them.
        settings: everything that the records depend on besides code and slides.
        code: digest of the code behind them.
    """

    workspace: Path
    stage: str
    work: Work
    slides: Sequence[Slide]
    settings: Mapping[str, Any]
    code: str
    _by_count: dict[int, dict[Share, list[Slide]]] = field(default_factory=dict, init=False)
    _known: dict[str, str] = field(default_factory=dict, init=False)  # slide -> its state

    @cached_property
    def folder(self) -> Path:
        """Where they lie."""
        names = digest_of([(slide.slide_id, slide.image, slide.mask) for slide in self.slides])
        return self.workspace / FOLDER / f"{self.stage}-{names}"

    def write(self, share: Share, engine: Engine, *, again: bool = False) -> "Written":
        """Makes a share, unless it is there.

        Args:
            share: which.
            engine: what does the work, `slide.Threads` or `spark.Spark`.
            again: also if it is there.

        Raises:
            CohortError: a slide was changed meanwhile.
        """
        planned, path, slides = self._states(share), self._path(share), self._of(share)
        if not again and (there := self._intact(path)):
            return Written(path, len(slides), there["problems"])
        tally, report = _Tally(), reporter(f"{self.stage} {share}", "slides")

        def about() -> dict[str, Any]:
            if changed := [slide for (slide, _) in set(planned) - tally.states]:
                raise CohortError(
                    f"{self.stage}: {listed(sorted(changed))} changed while share {share} was made; make it again"
                )
            found = {"problems": tally.problems, "together": engine.together}
            return {"code": self.code, "settings": self._settings, **found}

        made = tally.passing(engine(self.work, slides, report))
        self._file.write_batches(made, done_schema(self.work.record), path, about)
        return Written(path, len(slides), tally.problems, new=True)

    def join(self, keep: Callable[[Any], Any] = lambda record: record) -> Joined:
        """The records of all slides.

        Args:
            keep: what of a record stays in memory, asked before the next batch of records is read; not asked of errors.

        Raises:
            MissingSharesError: a share is missing, or out of date; says which and why.
            CohortError: a file could not be read when its share was made.
        """
        found = self._found()
        if not found:
            raise MissingSharesError(
                f"{self.stage}: no share of these slides is in {self.folder.parent}; make all shares with the same workspace "
                "(DOCTOGRES_WORKSPACE)",
                ["1/8"],
            )
        lacking = {
            count: [share for share in self._divided(count) if not self._path(share).is_file()] for count in found
        }
        count = min(lacking, key=lambda count: (len(lacking[count]) / count, count))
        joined, shares = Joined({}, {}, []), [] if lacking[count] else list(self._divided(count))
        reported = counted(shares, f"{self.stage} join", "shares", len(shares))
        if missing := lacking[count] or [share for share in reported if not self._take(share, joined, keep)]:
            raise self._refusal(missing, found[count])
        if unread := [name for name, md5 in joined.hashes.items() if not md5]:
            raise CohortError(
                f"{self.stage}: {listed(unread)} could not be read; check the disk, then make the share again"
            )
        return replace(joined, records={slide.slide_id: joined.records[slide.slide_id] for slide in self.slides})

    def _take(self, share: Share, joined: Joined, keep: Callable[[Any], Any]) -> bool:
        """Adds a share; false if its file is damaged."""
        path = self._path(share)
        try:
            about = self._file.read_about(path)
            for one in done_in(self._file.read_batches(path), self.work.record):
                failed = isinstance(one.record, DoctogresError)
                joined.records[one.slide_id] = one.record if failed else keep(one.record)
                joined.hashes.update((file.name, file.md5) for file in one.files)
        except UpstreamError:
            return False
        names = [slide.slide_id for slide in self._of(share)]
        step = about["together"] or max(1, len(names))
        joined.together.extend(names[start : start + step] for start in range(0, len(names), step))
        return True

    def _refusal(self, missing: Sequence[Share], found: Mapping[int, list[Path]]) -> MissingSharesError:
        """Names the missing shares and, of those that are there in another state, why they do not count."""
        numbers = _ranges([share.number for share in missing])
        problem = f"{self.stage}: {len(missing)} of {missing[0].count} shares are missing in {self.folder}: {numbers}"
        reasons = [f"{share} {why}" for share in missing if (why := self._why(share, found.get(share.number, ())))]
        return MissingSharesError("; ".join(filter(None, [problem, listed(reasons)])), list(map(str, missing)))

    def _why(self, share: Share, files: Iterable[Path]) -> str:
        """Why the newest of these files is not the share that is needed; empty if there are none."""
        for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
            try:
                about = self._file.read_about(path)
                rows = [row for batch in self._file.read_batches(path, STATE) for row in batch.to_pylist()]
            except UpstreamError as error:
                return str(error)
            if about["code"] != self.code:
                return "was made by another version of the code"
            if about["settings"] != self._settings:
                return "was made with other settings"
            then = {row["slide_id"]: row["state"] for row in rows}
            changed = [slide for slide, state in self._states(share) if then.get(slide) != state]
            return f"was made before these slides changed: {listed(changed)}"
        return ""

    def _found(self) -> dict[int, dict[int, list[Path]]]:
        """The files that are there, whatever their state: number of shares -> share -> paths."""
        found: dict[int, dict[int, list[Path]]] = {}
        for path in self.folder.glob("*.parquet"):
            if name := FILE.fullmatch(path.name):
                found.setdefault(int(name["count"]), {}).setdefault(int(name["number"]), []).append(path)
        return found

    def _path(self, share: Share) -> Path:
        name = f"{share.number}-of-{share.count}-{digest_of(self.code, self._settings, self._states(share))}.parquet"
        return self.folder / name

    def _intact(self, path: Path) -> dict[str, Any] | None:
        """What a share says about itself; None if it is missing or damaged, and is to be made again."""
        try:
            about = self._file.read_about(path) if path.is_file() else None
            for _ in self._file.read_batches(path) if about else ():
                pass
        except UpstreamError:
            return None
        return about

    def _of(self, share: Share) -> list[Slide]:
        return self._divided(share.count)[share]

    def _divided(self, count: int) -> dict[Share, list[Slide]]:
        if count not in self._by_count:
            self._by_count[count] = divided(self.slides, count)
        return self._by_count[count]

    def _states(self, share: Share) -> list[tuple[str, str]]:
        """The share's slides with their states now."""
        new = [slide for slide in self._of(share) if slide.slide_id not in self._known]
        for slide, state in zip(new, map_slides(lambda slide: state_of(self.work.root, slide), new), strict=True):
            self._known[slide.slide_id] = state
        return [(slide.slide_id, self._known[slide.slide_id]) for slide in self._of(share)]

    @property
    def _settings(self) -> str:
        return digest_of(dict(self.settings))

    @property
    def _file(self) -> TableFile:
        return TableFile(f"share of `{self.stage}`", version=1, columns=("slide_id", "record"), stage=self.stage)


def _ranges(numbers: Sequence[int]) -> str:
    """Rising numbers as a scheduler takes them for its array: `2,7-9`."""
    runs = [list(run) for _, run in groupby(enumerate(numbers), lambda placed: placed[1] - placed[0])]
    ends = [(run[0][1], run[-1][1]) for run in runs]
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ends)
