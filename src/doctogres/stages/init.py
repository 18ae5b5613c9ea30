"""init: looks at a folder, says what it understood and what to fix, and writes cohort.csv."""

import os
from io import BytesIO
from pathlib import Path

import pandas as pd

from doctogres.errors import CohortError, ParameterError
from doctogres.remote import is_address, local_files, send
from doctogres.slides.layout import check_path
from doctogres.slides.reasons import by_reason
from doctogres.slides.survey import COLUMNS, Survey, survey
from doctogres.spreadsheets import write_csv
from doctogres.tracking.runs import PROBLEMS, SLIDES, StageResult, StageRun, run_stage


def init(*, data: str, output: str = "cohort.csv", strict: bool = False) -> StageResult:
    """Runs the stage on a folder; `output` is the path or address where the table goes.

    Raises:
        CohortError: not a folder, or there are no pictures in it.
        ParameterError: another table is at `output`.
    """
    folder, address = check_path(data), data.rstrip("/") if is_address(data) else ""
    if not folder.is_dir():
        raise CohortError(
            f"data={data}: init looks at folders; give the folder of the slides (unpack a zip first), or pass a table such as "
            "cohort.csv to `clean` or `main`"
        )
    found = survey(folder)
    table = cohort_table(found, Path(output).resolve().parent, address=address)
    if output:
        _check_replaceable(output, table)

    def body(run: StageRun) -> None:
        write_csv(table, path := run.publish("cohort"))
        lines = [f"{what:9}{said}" for what, said in found.counts().items()]
        to_fix = by_reason(found.problems)
        print("\n".join(f"init: {line}" for line in lines), flush=True)
        for line in to_fix:
            print(f"init: to fix: {line}", flush=True)
        run.log_metrics({SLIDES: len(found.slides), PROBLEMS: len(found.problems)})
        run.name(f"{len(found.slides)} slides")
        run.note(f"{'; '.join(lines)}. To fix: {'; '.join(to_fix) or 'nothing'}.")
        if output:
            send(path, output)
            print(f"init: {output}: check it, then pass data={output}", flush=True)

    return run_stage("init", body, settings={"data": address or str(found.root)}, inputs={}, rerun=True, strict=strict)


def _check_replaceable(output: str, table: pd.DataFrame) -> None:
    """Refuses to replace a table of other content: people correct it, and enter labels and patients there by hand."""
    there = local_files([output])[output] if is_address(output) else Path(output)
    write_csv(table, written := BytesIO())
    if there.is_file() and there.read_bytes() != written.getvalue():
        raise ParameterError(
            f"output={output}: another table is there, and corrections in it would be lost; give another output, or move it away"
        )


def cohort_table(found: Survey, folder: Path, *, address: str = "") -> pd.DataFrame:
    """cohort.csv: a row per slide.

    Args:
        found: the survey.
        folder: where the table will lie; paths below it are relative, others absolute.
        address: of the folder that was looked at, where that is a copy; the table then holds addresses.
    """

    def path(name: str) -> str:
        if name and address:
            return f"{address}/{name}"
        whole = found.root / name
        return os.path.relpath(whole, folder) if name and whole.is_relative_to(folder) else str(whole) if name else ""

    rows = [
        {
            **dict(
                zip(
                    COLUMNS,
                    (slide.slide_id, path(slide.image), path(slide.mask), slide.label, slide.group, slide.part),
                    strict=True,
                )
            ),
            **{column: slide.about.get(column, "") for column in found.about},
        }
        for slide in found.slides
    ]
    table = pd.DataFrame(rows, columns=[*COLUMNS, *found.about], dtype=object)
    return table if (table["group"] != "").any() else table.drop(columns="group")
