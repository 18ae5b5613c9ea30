"""The shares of a stage as Parquet files in the workspace: written by any number of machines, joined by one.

    WORKSPACE/shards/STAGE-SLIDES/2-of-8-DIGEST.parquet

SLIDES is a digest of the slides' names, DIGEST one of the code, the settings, and the state of the share's slides (their rows,
and the sizes and times of their files). A file is there as a whole or not at all, and its name says all that its content depends on.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from doctogres.records.slide import Done, Engine, Slide, Work, done_schema, state_of

FOLDER: Final = "shards"
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
        done: what became of every slide, by slide, in order.
        together: the slides that the work was given in one call, for every call.
    """

    done: dict[str, Done]
    together: list[list[str]]

    @property
    def records(self) -> dict[str, Any]:
        """The records, or the errors in their place, by slide."""
        return {slide: one.record for slide, one in self.done.items()}

    @property
    def hashes(self) -> dict[str, str]:
        """The MD5 of all files, by path."""
        return {file.name: file.md5 for one in self.done.values() for file in one.files}


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
        if not again and (there := self._read(path)):
            return Written(path, len(slides), there[1]["problems"])
        report = reporter(f"{self.stage} {share}", "slides")
        schema, rows, problems = done_schema(self.work.record), [], 0
        for number, one in enumerate(engine(self.work, slides), 1):
            rows.append(pa.RecordBatch.from_pylist([one.to_row(self.work.record)], schema))
            problems += _has_problem(one.record)
            report(number, len(slides))
        table = pa.Table.from_batches(rows, schema)
        made = zip(*(table[column].to_pylist() for column in ("slide_id", "state")), strict=True)
        if changed := [slide for (slide, _) in set(planned) - set(made)]:
            raise CohortError(
                f"{self.stage}: {listed(sorted(changed))} changed while share {share} was made; make it again"
            )
        about = {"code": self.code, "settings": self._settings, "problems": problems, "together": engine.together}
        self._file.write(table, path, about)
        return Written(path, len(slides), problems, new=True)

    def join(self) -> Joined:
        """The records of all slides.

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
        shares = [] if lacking[count] else list(self._divided(count))
        read = {
            share: self._read(self._path(share))
            for share in counted(shares, f"{self.stage} join", "shares", len(shares))
        }
        if missing := lacking[count] or [share for share, content in read.items() if content is None]:
            raise self._refusal(missing, found[count])
        by_slide: dict[str, Done] = {}
        together: list[list[str]] = []
        for share, (table, about) in ((share, content) for share, content in read.items() if content):
            by_slide |= {one.slide_id: one for one in self._decoded(table)}
            names = [slide.slide_id for slide in self._of(share)]
            step = about["together"] or max(1, len(names))
            together += [names[start : start + step] for start in range(0, len(names), step)]
        if unread := [file.name for one in by_slide.values() for file in one.files if not file.md5]:
            raise CohortError(
                f"{self.stage}: {listed(unread)} could not be read; mend the disk and make the share again"
            )
        return Joined({slide.slide_id: by_slide[slide.slide_id] for slide in self.slides}, together)

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
                table, about = self._file.read_arrow(path)
            except UpstreamError as error:
                return str(error)
            if about["code"] != self.code:
                return "was made by another version of the code"
            if about["settings"] != self._settings:
                return "was made with other settings"
            then = dict(zip(*(table[column].to_pylist() for column in ("slide_id", "state")), strict=True))
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

    def _read(self, path: Path) -> tuple[pa.Table, dict[str, Any]] | None:
        """The content of a share; None if it is missing or damaged, and is to be made again."""
        try:
            return self._file.read_arrow(path) if path.is_file() else None
        except UpstreamError:
            return None

    def _decoded(self, table: pa.Table) -> Iterator[Done]:
        for batch in table.to_batches():
            yield from (Done.from_row(row, self.work.record) for row in batch.to_pylist())

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


def _has_problem(record: Any) -> bool:
    """Whether there is no record, or one that says that the slide cannot be used."""
    return isinstance(record, DoctogresError) or bool(getattr(record, "reason", ""))
