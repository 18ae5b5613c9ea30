"""Cleans a whole cohort: measures and judges every slide, merges groups, and splits the usable slides."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

import pandas as pd

from doctogres.cleaning.audit import render_audit
from doctogres.cleaning.decisions import DROP, Decision, apply_decisions, check_effective, check_known, decision_table
from doctogres.cleaning.evidence import Evidence, Measuring
from doctogres.cleaning.outcome import decide, merged_groups, rare_classes
from doctogres.cleaning.pictures import Pictures
from doctogres.errors import CohortError
from doctogres.records.slide import slides_of
from doctogres.settings import CleanSettings
from doctogres.slides.cohort import find_slides
from doctogres.slides.reasons import Reason, by_reason
from doctogres.slides.site_folds import site_folds
from doctogres.slides.splits import HOLDOUT, assign_folds, check_no_leakage
from doctogres.slides.subgroups import subgroup_columns
from doctogres.slides.table import COLUMNS, DROPPED, KEPT, checked, usable


@dataclass(frozen=True)
class CleanResult:
    """The result of cleaning.

    Attributes:
        table: a row per slide found, with the columns of the cohort table.
        audit: yields the audit page, piece by piece.
        outcomes: number of slides by outcome.
        reasons: number of slides by reason code.
        class_shares: label, slides_before, slides_after, share_before, share_after.
        twins: group, kind (mask, picture or near-copy), slide_id, label, outcome: a row per member of a group.
        decisions: a row per slide that was dropped, repaired or flagged, with its automatic outcome and manual decision.
        fold_names: see `CohortTable`.
    """

    table: pd.DataFrame
    audit: Callable[[], Iterator[str]]
    outcomes: dict[str, int]
    reasons: dict[str, int]
    class_shares: pd.DataFrame
    twins: pd.DataFrame
    decisions: pd.DataFrame
    fold_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def audit_html(self) -> str:
        """The audit page."""
        return "".join(self.audit())


class NothingUsableError(CohortError):
    """Fewer than two classes have usable slides; `result` says what happened to every slide."""

    def __init__(self, problem: str, result: CleanResult):
        super().__init__(problem)
        self.result = result


def clean_cohort(
    root: Path,
    settings: CleanSettings,
    *,
    seed: int,
    slides: pd.DataFrame | None = None,
    decisions: Mapping[str, Decision] | None = None,
    hashes: Mapping[str, str] | None = None,
    measured: Mapping[str, Evidence] | None = None,
    pictures: Pictures | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> CleanResult:
    """Judges every labelled slide of a cohort and splits the usable ones.

    Nothing in the folder is changed. The result does not depend on the number of workers.

    Args:
        root: the cohort's folder.
        settings: the policy.
        seed: of the split.
        slides: what `find_slides` found, if it was not called with the folder alone.
        decisions: manual decisions by slide; they override the policy.
        hashes: MD5 of files that are already hashed, by their path relative to `root`.
        measured: of every slide that is used, if they were measured elsewhere: no slide is read then.
        pictures: what was taken out of `measured`.
        workers: number of threads, one per core by default.
        progress: called with (slides measured, slides to measure).

    Raises:
        NothingUsableError: fewer than two classes have usable slides.
        CohortError: not a cohort, the label table cannot be read, or a decision is not possible.
    """
    decisions = decisions or {}
    slides = find_slides(root) if slides is None else slides
    check_known(decisions, slides["slide_id"])
    kept = slides[slides["outcome"] == KEPT]
    found = (
        _measure(root, kept, hashes or {}, workers, progress)
        if measured is None
        else (measured[slide] for slide in kept["slide_id"])
    )
    pictures = Pictures() if pictures is None else pictures
    evidence = {one.slide_id: pictures.take(one) for one in found}
    labels: dict[str, str] = dict(slides.loc[slides["label"].notna(), ["slide_id", "label"]].itertuples(index=False))
    given: dict[str, str] = dict(slides.loc[slides["group"].notna(), ["slide_id", "group"]].itertuples(index=False))
    wanted = {slide for slide, decided in decisions.items() if decided.decision != DROP}
    outcomes, joined = decide(evidence, pictures, labels, settings, wanted)

    table = slides.set_index("slide_id", drop=False)
    decided = pd.DataFrame([vars(outcome) for outcome in outcomes.values()], index=list(outcomes), dtype=object)
    table["twin_of"] = None
    if len(decided):
        table.loc[decided.index, ["outcome", "reason", "twin_of"]] = decided[["outcome", "reason", "twin_of"]]
    automatic = table[["outcome", "reason"]].copy()
    apply_decisions(table, decisions, evidence)
    groups = merged_groups(list(table["slide_id"]), given, chain(*joined.values()))
    table["group"] = table["slide_id"].map(groups)
    for column in ("width", "height", "image_md5", "mask_md5"):
        values = [getattr(evidence.get(slide), column, None) for slide in table["slide_id"]]
        table[column] = pd.array(values, dtype="Int64" if column in ("width", "height") else "str")
    of_files = [getattr(evidence.get(slide), "mpp", None) or settings.mpp or None for slide in table["slide_id"]]
    table["mpp"] = table["mpp"].astype(float).fillna(pd.Series(of_files, index=table.index, dtype=float))
    _drop_rare_classes(table)
    check_effective(table, decisions)
    problem = _too_little(table, root)
    table["fold"] = None
    fold_names = {} if problem else _split(table, settings, seed)

    reviewed = decision_table(table, automatic, decisions, evidence)
    twins = _twin_table(joined, table)
    table = checked(_typed(table.reset_index(drop=True)), "the cleaned cohort")
    shares = _class_shares(table)
    result = CleanResult(
        table=table,
        audit=partial(render_audit, table, shares, twins, reviewed, evidence, pictures),
        outcomes={str(name): int(count) for name, count in table["outcome"].value_counts().items()},
        reasons=_reason_counts(table),
        class_shares=shares,
        twins=twins,
        decisions=reviewed,
        fold_names=fold_names,
    )
    if problem:
        raise NothingUsableError(problem, result)
    return result


def _measure(
    root: Path,
    slides: pd.DataFrame,
    hashes: Mapping[str, str],
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> Iterator[Evidence]:
    files = (slide.with_hashes(hashes) for slide in slides_of(slides))
    if progress is not None:
        progress(0, len(slides))
    for number, measured in enumerate(Measuring(root)(files, workers=workers), 1):
        yield measured
        if progress is not None:
            progress(number, len(slides))


def _drop_rare_classes(table: pd.DataFrame) -> None:
    """Drops, in place, the slides of classes that have only one group left."""
    left = usable(table)
    reasons = rare_classes(
        dict(zip(left["slide_id"], left["label"], strict=True)), dict(zip(left["slide_id"], left["group"], strict=True))
    )
    for label, reason in reasons.items():
        table.loc[left.index[left["label"] == label], ["outcome", "reason"]] = [DROPPED, reason]


def _too_little(table: pd.DataFrame, root: Path) -> str:
    """Why the usable slides cannot be split, with the first slide of every reason; empty if they can."""
    left = usable(table)
    classes = sorted(left["label"].unique())
    if len(classes) >= 2:
        return ""
    dropped = table[table["outcome"] == DROPPED]
    reasons = "; ".join(by_reason(zip(dropped["slide_id"], dropped["reason"], strict=True))) or "none was dropped"
    only = f" (all {classes[0]})" if classes else ""
    return (
        f"{root}: {len(left)} usable slides{only} of {len(table)}; at least two classes with slides of two groups each are "
        f"needed: {reasons}"
    )


def _split(table: pd.DataFrame, settings: CleanSettings, seed: int) -> dict[str, str]:
    """Fills the column `fold`, in place; returns which site a fold is, if `folds_by` makes it one."""
    left = usable(table)
    labels, groups = list(left["label"]), list(left["group"])
    folds = assign_folds(labels, groups, holdout=settings.holdout, folds=settings.folds, seed=seed)
    names: dict[str, str] = {}
    if settings.folds_by:
        (column,) = _columns_of(table, settings.folds_by)
        trained = left[folds != HOLDOUT]
        chosen, names = site_folds(
            list(trained["label"]), list(trained["group"]), list(trained[column]), column=settings.folds_by
        )
        folds[folds != HOLDOUT] = chosen
    check_no_leakage(folds, groups)
    table.loc[left.index, "fold"] = folds.tolist()
    return names


def _columns_of(table: pd.DataFrame, folds_by: str) -> list[str]:
    try:
        return subgroup_columns(table, folds_by)
    except CohortError as error:
        raise CohortError(
            f"folds_by={folds_by}: the table of labels has no such column, or it is not kept; give its name, and subgroups={folds_by}"
        ) from error


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    texts = [column for column in [*COLUMNS, *subgroup_columns(table)] if column not in ("width", "height", "mpp")]
    return table.astype(dict.fromkeys(texts, "str"))


def _twin_table(joined: Mapping[str, Sequence[tuple[str, ...]]], table: pd.DataFrame) -> pd.DataFrame:
    rows = [
        (f"{kind}-{number}", kind, slide)
        for kind, groups in joined.items()
        for number, group in enumerate(groups, 1)
        for slide in group
    ]
    twins = pd.DataFrame(rows, columns=["group", "kind", "slide_id"], dtype=object)
    return twins.assign(label=twins["slide_id"].map(table["label"]), outcome=twins["slide_id"].map(table["outcome"]))


def _reason_counts(table: pd.DataFrame) -> dict[str, int]:
    codes = table["reason"].map(Reason.of).dropna()
    return {str(code): int(count) for code, count in codes.value_counts().items()}


def _class_shares(table: pd.DataFrame) -> pd.DataFrame:
    before = table["label"].dropna().value_counts().sort_index()
    after = usable(table)["label"].value_counts().reindex(before.index, fill_value=0)
    return pd.DataFrame(
        {
            "label": before.index.astype(str),
            "slides_before": before.to_numpy(),
            "slides_after": after.to_numpy(),
            "share_before": (before / before.sum()).to_numpy(),
            "share_after": (after / max(1, after.sum())).to_numpy(),
        }
    )
