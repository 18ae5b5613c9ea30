"""What `shard=` and `engine=` mean for a stage: where the records of its slides are made."""

import time
from functools import partial
from typing import Any

from doctogres.catalogue import JOIN, SPARK
from doctogres.errors import CohortError
from doctogres.records.share import WHOLE, Share
from doctogres.records.slide import Done, done
from doctogres.records.store import Engine, Shares
from doctogres.tracking.runs import PROBLEMS, SECONDS, SLIDES, StageResult


def make_share(
    shares: Shares, share: Share, *, engine: str, spark_master: str, rerun: bool = False, strict: bool = False
) -> StageResult:
    """Makes a share, outside of MLflow: a thousand tasks that start at once would wait for each other at its store.

    Raises:
        CohortError: some of its slides cannot be used, and `strict`.
    """
    began = time.perf_counter()
    written = shares.write(share, chosen(engine, spark_master), again=rerun)
    seconds = time.perf_counter() - began
    counts = f"{written.slides} slides, {written.problems} with a problem"
    made = f"made in {seconds:.1f} s" if written.new else "there already"
    said = f"{shares.stage}: share {share} {made}: {counts}: {written.path}"
    if strict and written.problems:
        raise CohortError(f"{said}; strict=true allows no problems")
    metrics = {SLIDES: float(written.slides), PROBLEMS: float(written.problems), SECONDS: round(seconds, 1)}
    return StageResult(shares.stage, "", {"share": str(written.path)}, metrics, reused=not written.new, summary=said)


def made_elsewhere(
    shares: Shares, shard: str, *, engine: str, spark_master: str, rerun: bool = False
) -> dict[str, Done] | None:
    """The records that shares or Spark have made, by slide; None if this process is to make them."""
    if shard != JOIN and engine == SPARK:
        shares.write(WHOLE, chosen(engine, spark_master), again=rerun)
    return shares.join() if shard == JOIN or engine == SPARK else None


def hashes_of(records: dict[str, Done]) -> dict[str, str]:
    """The MD5 of all files of these slides, by path."""
    return {file.name: file.md5 for one in records.values() for file in one.files}


def found(records: dict[str, Done]) -> dict[str, Any]:
    """The records, or the errors in their place, by slide."""
    return {slide: one.record for slide, one in records.items()}


def chosen(engine: str, spark_master: str, *, hashed: bool = True) -> Engine:
    """The engine that the parameters name; it hashes the files, too, unless their hashes are known."""
    if engine != SPARK:
        return partial(done, hashed=hashed)
    from doctogres.records.spark import Spark

    return Spark(spark_master, hashed=hashed)
