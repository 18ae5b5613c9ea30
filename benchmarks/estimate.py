"""Whether `preset=auto` keeps its word: the time that is promised for every stage and the time that it takes.

    python -m benchmarks.estimate FOLDER COHORT [NAME=VALUE ...]

A number as COHORT draws a demo cohort of so many slides; other words are parameters of `mlflow run .`. Store, workspace and
cohort lie in FOLDER; a store that is there already is used again.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import mlflow

from benchmarks.kills import environment, finish
from doctogres.progress import duration
from doctogres.stages.main import STAGES
from doctogres.synthetic import make_cohort

TOTAL: Final = "all"


def cohort_of(given: str, folder: Path) -> Path:
    """The cohort: a path, or a number of slides to draw."""
    if not given.isdecimal():
        return Path(given).resolve()
    drawn = folder / f"drawn{given}"
    if not drawn.exists():
        make_cohort(drawn, slides=int(given))
    return drawn


def table(metrics: Mapping[str, float]) -> list[str]:
    """The rows of a Markdown table, stage by stage and for all of them, from the metrics of a run of `main`."""
    promised, taken = (
        {name.removeprefix(kind): value for name, value in metrics.items() if name.startswith(kind)}
        for kind in ("promised/", "taken/")
    )
    rows = [(stage, promised[stage], taken[stage]) for stage in STAGES if stage in taken]
    lines = ["| stage | promised | taken | taken / promised |", "|---|---|---|---|"]
    for stage, said, took in [*rows, (TOTAL, sum(promised.values()), sum(taken.values()))]:
        lines.append(f"| {stage} | {duration(said)} | {duration(took)} | {took / said:.2f} |")
    return lines


def main(where: str, given: str, *options: str) -> None:
    """Runs the pipeline, and prints what was chosen and the table."""
    folder = Path(where).resolve()
    environment(folder)
    finish(cohort_of(given, folder), folder, ("preset=auto", *options))
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    query = "tags.`doctogres.stage` = 'main'"
    (run,) = mlflow.search_runs(search_all_experiments=True, filter_string=query, max_results=1, output_format="list")
    print(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/preset.txt"))
    print("\n".join(table(run.data.metrics)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
