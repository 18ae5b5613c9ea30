"""Manual decisions about slides: read from a CSV, checked, and applied over the automatic outcomes.

A decision changes only the slide that it names. The audit page and the CSV that cleaning writes list every slide that
was dropped, repaired or flagged; the edited CSV is the input of the next run.
"""

import csv
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from doctogres.cleaning.evidence import Evidence
from doctogres.cleaning.outcome import can_be_used
from doctogres.errors import CohortError, ParameterError, listed
from doctogres.slides.names import slide_name
from doctogres.slides.reasons import Reason
from doctogres.slides.sheet import MAX_COLUMNS
from doctogres.slides.table import DROPPED, KEPT, REPAIRED
from doctogres.spreadsheets import as_written

KEEP: Final = "keep"
DROP: Final = "drop"
REPAIR: Final = "repair"
OUTCOME_OF: Final = {KEEP: KEPT, DROP: DROPPED, REPAIR: REPAIRED}
REMEDY: Final = "save it as a comma-separated UTF-8 file with the columns slide_id,decision,reason"


@dataclass(frozen=True)
class Decision:
    """A manual decision about a slide, `keep`, `drop` or `repair`, and the reason for it."""

    decision: str
    reason: str = ""


def read_decisions(path: Path, slides: Collection[str] = ()) -> dict[str, Decision]:
    """The decisions of a CSV by slide; lines with a blank decision and further columns are ignored.

    Args:
        path: of the CSV.
        slides: the cohort's; a slide may be called like a picture, `a.svs`, which is otherwise the slide `a`.

    Raises:
        ParameterError: not such a CSV, an unknown decision, or two different ones for a slide; names the line.
    """
    name = f"decisions={path}"
    decisions: dict[str, Decision] = {}
    known = frozenset(slides)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file)
            lines.fieldnames = [column.strip() for column in lines.fieldnames or ()]
            if len(lines.fieldnames) > MAX_COLUMNS:
                raise ParameterError(f"{name} has {len(lines.fieldnames)} columns, more than {MAX_COLUMNS}; {REMEDY}")
            if missing := [column for column in ("slide_id", "decision") if column not in lines.fieldnames]:
                raise ParameterError(
                    f"{name} lacks the column {missing[0]} (it has {listed(lines.fieldnames) or 'none'}); {REMEDY}"
                )
            for line in lines:
                _take(decisions, line, f"{name}, line {lines.line_num}", known)
    except OSError as error:
        raise ParameterError(f"{name} cannot be opened ({error.strerror or error}); give the path of a CSV") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ParameterError(f"{name} is not a readable CSV ({error}); {REMEDY}") from error
    return decisions


def check_known(decisions: Mapping[str, Decision], slides: Collection[str]) -> None:
    """Refuses decisions about slides that are not in the cohort.

    Raises:
        CohortError: names the first of them.
    """
    if unknown := sorted(decisions.keys() - set(slides)):
        raise CohortError(
            f"{unknown[0]}: there is a decision about this slide, but the cohort has no such slide "
            f"({len(unknown)} of {len(decisions)} decisions are about unknown slides); correct or remove the line"
        )


def possible_decisions(measured: Evidence | None, reason: str) -> tuple[str, ...]:
    """The decisions that a slide allows, given its measurements, if any, and the automatic reason."""
    if measured is None or not can_be_used(measured):
        return (DROP,)
    drawn = Reason.of(reason) in (Reason.CARTOON, Reason.CARTOON_TWIN)  # green in a cartoon is not a splat
    return (KEEP, DROP, REPAIR) if measured.splat_share and measured.lesion_left and not drawn else (KEEP, DROP)


def apply_decisions(table: pd.DataFrame, decisions: Mapping[str, Decision], evidence: Mapping[str, Evidence]) -> None:
    """Overrides outcome and reason in the table (indexed by slide_id), in place.

    Raises:
        CohortError: a slide's files do not allow the decision.
    """
    for slide, decided in decisions.items():
        outcome, reason = str(table.at[slide, "outcome"]), str(table.at[slide, "reason"])
        automatic = ", ".join(filter(None, [outcome, reason]))
        possible = possible_decisions(evidence.get(slide), reason)
        if decided.decision not in possible:
            raise CohortError(
                f"{slide}: the decision {decided.decision!r} is not possible ({_why(decided.decision, possible)}; "
                f"automatic outcome: {automatic}); {' or '.join(possible)} it, or leave the decision blank"
            )
        why = f" ({decided.reason})" if decided.reason else ""
        text = Reason.DECISION.because(decision=decided.decision, why=why, automatic=automatic)
        table.loc[slide, ["outcome", "reason"]] = [OUTCOME_OF[decided.decision], text]


def check_effective(table: pd.DataFrame, decisions: Mapping[str, Decision]) -> None:
    """Refuses decisions that a later cleaning rule overrode (a class too small to be split).

    Raises:
        CohortError: names the first such slide.
    """
    for slide, decided in decisions.items():
        if table.at[slide, "outcome"] != OUTCOME_OF[decided.decision]:
            raise CohortError(
                f"{slide}: the decision {decided.decision!r} cannot be applied ({table.at[slide, 'reason']!s}); keep "
                "more slides of its class, or leave the decision blank"
            )


def decision_table(
    table: pd.DataFrame, automatic: pd.DataFrame, decisions: Mapping[str, Decision], evidence: Mapping[str, Evidence]
) -> pd.DataFrame:
    """A row for every slide that was dropped, repaired or flagged, to be edited and passed to the next run.

    Args:
        table: the cleaned cohort, indexed by slide_id.
        automatic: outcome and reason before the decisions, with the same index.
        decisions: the decisions of this run.
        evidence: the measurements.
    """
    shown = table[(table["outcome"] != KEPT) | (table["reason"] != "")]
    rows = []
    for slide, label, twin in shown[["slide_id", "label", "twin_of"]].itertuples(index=False, name=None):
        given = decisions.get(slide, Decision(""))
        # Without a decision, the final row: a class may have become too small only after the decisions.
        source = automatic if given.decision else table
        outcome, reason = str(source.at[slide, "outcome"]), str(source.at[slide, "reason"])
        rows.append(
            {
                "slide_id": slide,
                "decision": given.decision,
                "reason": given.reason,
                "possible": " ".join(possible_decisions(evidence.get(slide), reason)),
                "automatic_outcome": outcome,
                "automatic_reason": reason,
                "label": label,
                "twin_of": twin,
                "twin_label": table["label"].get(twin),
            }
        )
    columns = ["slide_id", "decision", "reason", "possible", "automatic_outcome", "automatic_reason"]
    return pd.DataFrame(rows, columns=[*columns, "label", "twin_of", "twin_label"], dtype=object)


def _take(
    decisions: dict[str, Decision],
    line: Mapping[str | None, str | list[str] | None],
    where: str,
    known: Collection[str],
) -> None:
    """Adds the decision of one line of the CSV."""
    texts = {
        name: as_written(" ".join(value.split())) if isinstance(value, str) else "" for name, value in line.items()
    }
    if any(line.get(None) or ()):  # values beyond the last column
        raise ParameterError(f"{where} has more values than columns; put a reason with commas in quotes")
    decision, stored = texts["decision"].lower(), as_written(str(line["slide_id"] or "").strip())
    slide = stored if stored in known else slide_name(texts["slide_id"])
    if not decision:
        return
    if decision not in OUTCOME_OF:
        raise ParameterError(
            f"{where}: {decision!r} for {slide} is not a decision; give {', '.join(OUTCOME_OF)} or leave it blank"
        )
    if not slide:
        raise ParameterError(f"{where} has the decision {decision!r} but no slide_id; fill it in or remove the line")
    before = decisions.get(slide)
    if before is not None and before.decision != decision:
        raise ParameterError(
            f"{where}: {slide} has the decision {decision!r}, but {before.decision!r} above; keep one line"
        )
    decisions[slide] = Decision(decision, texts.get("reason") or (before.reason if before else ""))


def _why(decision: str, possible: Collection[str]) -> str:
    if possible == (DROP,):
        return "the slide cannot be used at all"
    return f"no splat to {decision} was found, or no lesion would remain without it"
