"""clean: cohort folder or zip -> cohort table with an outcome for every slide, and the audit page."""

import shutil
from pathlib import Path
from typing import Final

import pandas as pd

from doctogres.catalogue import LOCAL, SPARK
from doctogres.cleaning.cohort import CleanResult, NothingUsableError, clean_cohort
from doctogres.cleaning.decisions import OUTCOME_OF, read_decisions
from doctogres.cleaning.evidence import Evidence, Measuring
from doctogres.cleaning.pictures import Pictures
from doctogres.drawing import contact_sheet, shrunk
from doctogres.errors import CohortError
from doctogres.files import file_digest, workspace
from doctogres.progress import reporter
from doctogres.records.share import Share
from doctogres.records.slide import slides_of
from doctogres.records.store import Shares
from doctogres.remote import local
from doctogres.settings import Preset
from doctogres.slides.cohort import content_digest, file_hashes, find_slides, open_cohort, slide_files
from doctogres.slides.formats import max_pixels
from doctogres.slides.images import encode_png
from doctogres.slides.labels import column_names
from doctogres.slides.layout import LABELS
from doctogres.slides.opening import open_slide
from doctogres.slides.reasons import CONTAMINATION, Reason, by_reason
from doctogres.slides.site_folds import described
from doctogres.slides.subgroups import AUTO
from doctogres.slides.table import DROPPED, KEPT, REVIEW, CohortTable
from doctogres.spreadsheets import write_csv
from doctogres.stages.shards import chosen, made_elsewhere, make_share
from doctogres.tracking.datasets import log_table
from doctogres.tracking.runs import PROBLEMS, SLIDES, StageResult, StageRun, run_stage
from doctogres.tracking.sources import code_digest

SHEET_SLIDES: Final = 24
TILE: Final = 200  # pixels

TWIN_METRICS: Final = {
    "mask": "twins/mask_groups",
    "picture": "twins/picture_groups",
    "near-copy": "twins/near_copy_clusters",
}


def clean(
    *,
    data: str,
    preset: Preset,
    seed: int,
    decisions: str = "",
    ignore_columns: str = "",
    subgroups: str = AUTO,
    annotations: str = "",
    shard: str = "",
    engine: str = LOCAL,
    spark_master: str = "",
    rerun: bool = False,
    strict: bool = False,
) -> StageResult:
    """Runs or reuses the stage for the cohort at `data` (folder or zip), or makes a share of it.

    `decisions` is a CSV of manual decisions; `ignore_columns` are label columns, separated by commas, that look like
    patient columns but are not; `subgroups` are those that are kept to split scores by.
    """
    decided = local(decisions) if decisions else None
    ignored = column_names(ignore_columns)
    root = open_cohort(data, workspace=workspace())
    slides = find_slides(root, ignore_columns=ignored, subgroups=subgroups, annotations=annotations)
    given = read_decisions(decided, slides["slide_id"]) if decided else {}
    joined, pictures = None, Pictures()
    if shard or engine == SPARK:
        shares, where = _shares(root, slides), chosen(engine, spark_master)
        if share := Share.parse(shard):
            return make_share(shares, share, where, rerun=rerun, strict=strict)
        used = set(slides.loc[slides["outcome"] == KEPT, "slide_id"])

        def keep(measured: Evidence) -> Evidence | None:
            return pictures.take(measured) if measured.slide_id in used else None

        joined = made_elsewhere(shares, shard, where, rerun=rerun, keep=keep)
    hashes = file_hashes(root, [LABELS]) | (joined.hashes if joined else file_hashes(root, slide_files(root, slides)))
    digest = content_digest(hashes)

    def body(run: StageRun) -> None:
        if decided:
            shutil.copyfile(decided, run.attach("decisions_given.csv"))
        report = reporter("", "slides")
        try:
            result = clean_cohort(
                root,
                preset.clean,
                seed=seed,
                slides=slides,
                decisions=given,
                hashes=hashes,
                measured=joined.records if joined else None,
                pictures=pictures,
                progress=report,
            )
        except NothingUsableError as error:
            _publish_audit(run, error.result)
            run.store_files()
            raise CohortError(f"{error}; audit.html of run {run.run_id} shows every slide") from error
        cohort = CohortTable(result.table, root, digest, result.fold_names)
        _publish(run, result, cohort, data, preset.clean.folds_by)
        _contact_sheet(run, cohort)

    return run_stage(
        "clean",
        body,
        settings=preset.clean.model_dump()
        | {"seed": seed, "max_pixels": max_pixels(), "ignore_columns": ",".join(ignored)}
        | {"subgroups": subgroups, "annotations": annotations},
        inputs={"data": digest} | ({"decisions": file_digest(decided)} if decided else {}),
        data_digest=digest,
        rerun=rerun,
        strict=strict,
    )


def _shares(root: Path, slides: pd.DataFrame) -> Shares:
    """The measurements depend on the files alone: labels may be corrected between the shares and their joining."""
    measured = slides_of(slides.assign(mpp=None, outcome=KEPT, reason=""))
    code = code_digest(Measuring.__module__)
    return Shares(workspace(), "clean", Measuring(root), measured, {"max_pixels": max_pixels()}, code)


def _publish_audit(run: StageRun, result: CleanResult) -> None:
    """The pages on which a person decides about slides."""
    with run.publish("audit").open("w", encoding="utf-8") as page:
        page.writelines(result.audit())
    write_csv(result.decisions, run.publish("decisions"))


def _publish(run: StageRun, result: CleanResult, cohort: CohortTable, data: str, folds_by: str) -> None:
    from doctogres.report.figures import class_shares_figure  # imported here so that a reused run skips matplotlib

    table = cohort.rows
    cohort.write(run.publish("cohort"))
    _publish_audit(run, result)
    write_csv(result.twins, run.publish("twin_groups"))
    write_csv(result.class_shares, run.publish("class_shares"))
    class_shares_figure(result.class_shares).savefig(run.attach("class_shares.png"), dpi=120)
    kept = len(cohort.usable)
    run.name(f"{kept} of {len(table)} slides")
    reasons = ", ".join(f"{count} {code}" for code, count in sorted(result.reasons.items())) or "nothing"
    dropped = table[table["outcome"] == DROPPED]
    unusable = dropped[~dropped["reason"].map(Reason.of).isin(CONTAMINATION)]
    for line in by_reason(zip(unusable["slide_id"], unusable["reason"], strict=True)):
        print(f"clean: cannot be used: {line}", flush=True)
    decided = result.decisions[result.decisions["decision"] != ""]
    changed = int((decided["decision"].map(OUTCOME_OF) != decided["automatic_outcome"]).sum())
    run.note(
        f"Checked {len(table)} slides of {data}; {kept} are used, in {table['fold'].nunique()} splits. "
        f"Dropped, repaired or flagged: {reasons}; see audit.html."
        + (f" {len(decided)} manual decisions, {changed} of which changed the outcome." * bool(len(decided)))
    )
    if cohort.fold_names:
        print(f"clean: {described(cohort.fold_names, folds_by)}", flush=True)
    if waiting := result.outcomes.get(REVIEW, 0):
        print(
            f"clean: {waiting} slides need review: see audit.html, fill in decisions.csv and pass it as decisions=FILE",
            flush=True,
        )
    counts = {f"slides/{outcome}": float(count) for outcome, count in result.outcomes.items()}
    counts |= {f"reasons/{code}": float(count) for code, count in result.reasons.items()}
    counts |= {"decisions/given": float(len(decided)), "decisions/changed": float(changed)}
    groups = result.twins.drop_duplicates("group")["kind"].value_counts()
    counts |= {metric: float(groups.get(kind, 0)) for kind, metric in TWIN_METRICS.items()}
    run.log_metrics({SLIDES: kept, "slides/found": len(table), **counts, PROBLEMS: float(len(unusable))})
    log_table(table, name="slides", source=str(data), context="cleaning", targets="label")


def _contact_sheet(run: StageRun, cohort: CohortTable) -> None:
    """A few usable slides of every class, to show what the model is trained on."""
    slides = cohort.usable
    per_class = max(1, SHEET_SLIDES // max(1, slides["label"].nunique()))
    shown = slides.groupby("label", sort=True).head(per_class).sort_values("label", kind="stable")
    tiles = [shrunk(open_slide(cohort.root / name).working, TILE) for name in shown["image"]]
    captions = [f"{row.slide_id}\n{row.label}" for row in shown.itertuples()]
    run.attach("contact_sheet.png").write_bytes(encode_png(contact_sheet(tiles, captions, columns=6, tile=TILE)))
