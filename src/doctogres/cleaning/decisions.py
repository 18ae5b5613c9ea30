"""A person's decisions about slides: read from a CSV, checked against what is possible, put over the machine's.

A decision changes the slide that it names and no other. The page and the CSV that cleaning leaves hold every slide
that is not plainly kept; that CSV, edited, is what is given back.
"""

import csv
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from doctogres.cleaning.evidence import Evidence
from doctogres.cleaning.outcome import can_be_used
from doctogres.errors import CohortError, ParameterError
from doctogres.slides.cohort import slide_name
from doctogres.slides.reasons import Reason
from doctogres.slides.table import DROPPED, KEPT, REPAIRED

KEEP: Final = "keep"
DROP: Final = "drop"
REPAIR: Final = "repair"
OUTCOME_OF: Final = {KEEP: KEPT, DROP: DROPPED, REPAIR: REPAIRED}
REMEDY: Final = "save it as a CSV with commas, in UTF-8, with the columns slide_id,decision,reason"


@dataclass(frozen=True)
class Decision:
    """What a person wants for a slide, `keep`, `drop` or `repair`, and why."""

    decision: str
    reason: str = ""


def read_decisions(path: Path) -> dict[str, Decision]:
    """The decisions of a CSV by slide; lines with a blank decision and further columns are left alone.

    Raises:
        ParameterError: not such a CSV, an unknown decision, or two different ones for a slide; names the line.
    """
    name = f"decisions={path}"
    decisions: dict[str, Decision] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file)
            lines.fieldnames = [column.strip() for column in lines.fieldnames or ()]
            if missing := [column for column in ("slide_id", "decision") if column not in lines.fieldnames]:
                raise ParameterError(
                    f"{name} lacks the column {missing[0]} (it has {', '.join(lines.fieldnames) or 'none'}); {REMEDY}"
                )
            for line in lines:
                _take(decisions, line, f"{name}, line {lines.line_num}")
    except OSError as error:
        raise ParameterError(f"{name} cannot be opened ({error.strerror or error}); give the path of a CSV") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ParameterError(f"{name} is not a readable CSV ({error}); {REMEDY}") from error
    return decisions


def check_known(decisions: Mapping[str, Decision], slides: Collection[str]) -> None:
    """Refuses decisions about slides that the cohort does not have.

    Raises:
        CohortError: names the first of them.
    """
    if unknown := sorted(decisions.keys() - set(slides)):
        raise CohortError(
            f"{unknown[0]}: there is a decision about it, but the cohort has no such slide "
            f"({len(unknown)} of {len(decisions)} decisions are about unknown slides); mend or remove the line"
        )


def possible_decisions(found: Evidence | None, reason: str) -> tuple[str, ...]:
    """The decisions that a slide allows, from its measurements, if there are any, and the machine's reason."""
    if found is None or not can_be_used(found):
        return (DROP,)
    drawn = Reason.of(reason) in (Reason.CARTOON, Reason.CARTOON_TWIN)  # the green of a drawing is no splat
    return (KEEP, DROP, REPAIR) if found.splat_share and found.lesion_left and not drawn else (KEEP, DROP)


def apply_decisions(table: pd.DataFrame, decisions: Mapping[str, Decision], evidence: Mapping[str, Evidence]) -> None:
    """Puts the decisions over outcome and reason of the table (indexed by slide_id), in place.

    Raises:
        CohortError: a slide's files do not allow what was decided.
    """
    for slide, decided in decisions.items():
        outcome, reason = str(table.at[slide, "outcome"]), str(table.at[slide, "reason"])
        machine = ", ".join(filter(None, [outcome, reason]))
        possible = possible_decisions(evidence.get(slide), reason)
        if decided.decision not in possible:
            raise CohortError(
                f"{slide}: the decision {decided.decision!r} is not possible ({_why(decided.decision, possible)}; "
                f"the machine says {machine}); {' or '.join(possible)} it, or leave the decision blank"
            )
        why = f" ({decided.reason})" if decided.reason else ""
        said = Reason.DECISION.because(decision=decided.decision, why=why, machine=machine)
        table.loc[slide, ["outcome", "reason"]] = [OUTCOME_OF[decided.decision], said]


def check_followed(table: pd.DataFrame, decisions: Mapping[str, Decision]) -> None:
    """Refuses decisions that a later rule of cleaning overrode (a class that is too small to be split).

    Raises:
        CohortError: names the first such slide.
    """
    for slide, decided in decisions.items():
        if table.at[slide, "outcome"] != OUTCOME_OF[decided.decision]:
            raise CohortError(
                f"{slide}: the decision {decided.decision!r} cannot be followed ({table.at[slide, 'reason']!s}); keep "
                "more slides of its class, or leave the decision blank"
            )


def decision_table(
    table: pd.DataFrame, machine: pd.DataFrame, decisions: Mapping[str, Decision], evidence: Mapping[str, Evidence]
) -> pd.DataFrame:
    """A row for every slide that is not plainly kept, to be edited and given back.

    Args:
        table: the cleaned cohort, indexed by slide_id.
        machine: the columns outcome and reason before the decisions, with the same index.
        decisions: those given.
        evidence: what was measured.
    """
    shown = table[(table["outcome"] != KEPT) | (table["reason"] != "")]
    rows = []
    for row in shown.to_dict("records"):
        slide = str(row["slide_id"])
        given = decisions.get(slide, Decision(""))
        # Where nobody decided, the row itself: a class may have become too small only after the decisions.
        source = machine if given.decision else table
        outcome, reason = str(source.at[slide, "outcome"]), str(source.at[slide, "reason"])
        rows.append(
            {
                "slide_id": slide,
                "decision": given.decision,
                "reason": given.reason,
                "possible": " ".join(possible_decisions(evidence.get(slide), reason)),
                "machine_outcome": outcome,
                "machine_reason": reason,
                "label": row["label"],
                "twin_of": row["twin_of"],
                "twin_label": table["label"].get(row["twin_of"]),
            }
        )
    columns = ["slide_id", "decision", "reason", "possible", "machine_outcome", "machine_reason"]
    return pd.DataFrame(rows, columns=[*columns, "label", "twin_of", "twin_label"], dtype=object)


def _take(decisions: dict[str, Decision], line: Mapping[str | None, str | list[str] | None], where: str) -> None:
    """Adds the decision of one line of the CSV."""
    texts = {name: " ".join(value.split()) if isinstance(value, str) else "" for name, value in line.items()}
    if any(line.get(None) or ()):  # what stands beyond the last column
        raise ParameterError(f"{where} has more values than the file has columns; put a reason with commas in quotes")
    slide, decision = slide_name(texts["slide_id"]), texts["decision"].lower()
    if not decision:
        return
    if decision not in OUTCOME_OF:
        raise ParameterError(f"{where}: {decision!r} for {slide} is no decision; give {', '.join(OUTCOME_OF)} or blank")
    if not slide:
        raise ParameterError(f"{where} has the decision {decision!r} but no slide_id; fill it in or remove the line")
    before = decisions.get(slide)
    if before is not None and before.decision != decision:
        raise ParameterError(f"{where}: {slide} is here {decision!r}, above {before.decision!r}; leave one line")
    decisions[slide] = Decision(decision, texts.get("reason") or (before.reason if before else ""))


def _why(decision: str, possible: Collection[str]) -> str:
    if possible == (DROP,):
        return "the slide cannot be used at all"
    return f"no splat to {decision} was found on it, or nothing of its lesion would be left"
