"""What `shard=` and `engine=` mean for a stage: where the records of its slides are made."""

import time
from collections.abc import Callable
from typing import Any

from doctogres.catalogue import JOIN, SPARK
from doctogres.errors import CohortError
from doctogres.records.share import WHOLE, Share
from doctogres.records.slide import Engine, Threads
from doctogres.records.store import Joined, Shares
from doctogres.tracking.runs import PROBLEMS, SECONDS, SLIDES, StageResult


def make_share(
    shares: Shares, share: Share, engine: Engine, *, rerun: bool = False, strict: bool = False
) -> StageResult:
    """Makes a share, outside of MLflow: a thousand tasks that start at once would wait for each other at its store.

    Raises:
        CohortError: some of its slides cannot be used, and `strict`.
    """
    began = time.perf_counter()
    written = shares.write(share, engine, again=rerun)
    seconds = time.perf_counter() - began
    counts = f"{written.slides} slides, {written.problems} with a problem"
    made = f"made in {seconds:.1f} s" if written.new else "there already"
    said = f"{shares.stage}: share {share} {made}: {counts}: {written.path}"
    if strict and written.problems:
        raise CohortError(f"{said}; strict=true allows no problems")
    metrics = {SLIDES: float(written.slides), PROBLEMS: float(written.problems), SECONDS: round(seconds, 1)}
    return StageResult(shares.stage, "", {"share": str(written.path)}, metrics, reused=not written.new, summary=said)


def made_elsewhere(
    shares: Shares,
    shard: str,
    engine: Engine,
    *,
    rerun: bool = False,
    keep: Callable[[Any], Any] = lambda record: record,
) -> Joined:
    """What shares or Spark have made, see `Shares.join`."""
    if shard != JOIN:
        shares.write(WHOLE, engine, again=rerun)
    return shares.join(keep)


def chosen(engine: str, spark_master: str, *, hashed: bool = True, together: int | None = None) -> Engine:
    """The engine that the parameters name.

    Args:
        engine: local or spark.
        spark_master: of Spark.
        hashed: whether the files are hashed, too, because nobody knows their hashes yet.
        together: number of slides in a task of Spark's; None for what suits the cohort and the cluster.
    """
    if engine != SPARK:
        return Threads(hashed)
    from doctogres.records.spark import Spark

    return Spark(spark_master, hashed=hashed, together=together)
