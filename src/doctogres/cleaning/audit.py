"""The audit page: one self-contained HTML file that shows every slide dropped, repaired, in doubt or kept with a remark.

It can be read without its script; with it, the page writes the CSV of decisions that the stage accepts. MLflow shows
it in a frame that allows scripts but neither downloads nor the modern clipboard API.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd

from doctogres.cleaning.decisions import REPAIR
from doctogres.cleaning.evidence import Evidence
from doctogres.cleaning.pictures import Pictures
from doctogres.pages import pieces
from doctogres.slides.images import data_address
from doctogres.slides.reasons import Reason, parsed
from doctogres.slides.table import DROPPED, KEPT, REPAIRED, REVIEW, usable

MOST_CARDS: Final = 300  # of one reason, about 4 MB; whoever looks at more lists them with decisions.csv
# In the order of the page: what needs a person comes first.
SECTIONS: Final = {
    REVIEW: ("For review", "The measurements are inconclusive. These slides are used unless you drop them."),
    REPAIRED: ("Repaired", "The splat was removed from the mask; the slide is used."),
    DROPPED: ("Dropped", "These slides are not used."),
    KEPT: ("Kept, with a remark", "These slides are used."),
}
GROUP_TITLES: Final = {
    "mask": "slides with identical masks",
    "picture": "slides with identical pictures",
    "near-copy": "near-duplicates (rotated, re-saved or with a splat)",
}


def render_audit(
    table: pd.DataFrame,
    shares: pd.DataFrame,
    twins: pd.DataFrame,
    reviewed: pd.DataFrame,
    evidence: Mapping[str, Evidence],
    pictures: Pictures,
    *,
    title: str = "Cleaning audit",
) -> Iterator[str]:
    """Yields the page for a cohort table, piece by piece; the other tables are those of `CleanResult`."""
    rows = table.set_index("slide_id", drop=False)
    counts = table["outcome"].value_counts()
    tiles = {outcome: int(counts.get(outcome, 0)) for outcome in (KEPT, REVIEW, REPAIRED, DROPPED)}
    return pieces(
        __package__,
        "audit.html",
        title=title,
        total=len(table),
        used=len(usable(table)),
        tiles=tiles | {"manual decisions": int((reviewed["decision"] != "").sum())},
        reasons=_reasons(table),
        shares=shares.to_dict("records"),
        twins=_twin_groups(twins),
        most=MOST_CARDS,
        sections=list(_sections(rows, reviewed, evidence, pictures)),
    )


def _reasons(table: pd.DataFrame) -> list[tuple[Reason, str, int]]:
    """Every reason with its outcome and number of slides, in the order of the page."""
    reasoned = table[table["reason"] != ""]
    counts = Counter(zip(map(Reason.of, reasoned["reason"]), reasoned["outcome"], strict=True))
    return [
        (reason, section, count)
        for section in SECTIONS
        for (reason, outcome), count in counts.most_common()
        if reason and outcome == section
    ]


def _twin_groups(twins: pd.DataFrame) -> dict[str, list[list[dict[Any, Any]]]]:
    """The slides of every group, by what they have in common."""
    groups: dict[str, list[list[dict[Any, Any]]]] = {}
    for (kind, _), members in twins.groupby(["kind", "group"], sort=False):
        groups.setdefault(GROUP_TITLES[str(kind)], []).append(members.to_dict("records"))
    return groups


def _sections(
    rows: pd.DataFrame, reviewed: pd.DataFrame, evidence: Mapping[str, Evidence], pictures: Pictures
) -> Iterator[dict[str, Any]]:
    """The page's headings, each with its number of slides and, by reason, its cards, their number and that of all slides."""
    findings = reviewed.set_index("slide_id", drop=False)
    for outcome, (heading, what) in SECTIONS.items():
        shown = rows[rows["slide_id"].isin(findings.index) & (rows["outcome"] == outcome)]
        codes = {}
        for code, group in shown.groupby(shown["reason"].map(Reason.of), sort=True):
            first = _first(findings.loc[group.index])
            card = partial(_card, rows=rows, evidence=evidence, pictures=pictures)
            codes[code] = map(card, first.to_dict("records")), len(first), len(group)
        if codes:
            yield {"heading": heading, "what": what, "slides": len(shown), "codes": codes}


def _first(findings: pd.DataFrame) -> pd.DataFrame:
    """As many slides as a page can show, and all with a decision: the page's CSV has those that it shows."""
    return findings[(np.arange(len(findings)) < MOST_CARDS) | (findings["decision"] != "")]


def _card(
    row: Mapping[Any, Any], rows: pd.DataFrame, evidence: Mapping[str, Evidence], pictures: Pictures
) -> dict[str, Any]:
    """What the page shows about a slide."""
    slide, twin = row["slide_id"], _text(row["twin_of"])
    measured, splat = evidence.get(slide), ""
    if measured is not None and REPAIR in row["possible"]:
        left = f"{measured.lesion_left} of {measured.lesion_pixels} lesion pixels would remain without it"
        splat = f"splat: {measured.splat_share:.2%} of the picture; {left}"
    code, sentence = parsed(row["automatic_reason"])
    return {
        "slide": _pictured(slide, rows, pictures),
        "twin": _pictured(twin, rows, pictures) if twin else None,
        "label": _text(row["label"]),
        "other_label": _text(row["twin_label"]) if twin and row["label"] != row["twin_label"] else None,
        "splat": splat,
        "code": code,
        "sentence": sentence,
        "decision": row["decision"],
        "why": _text(row["reason"]),
        "automatic": row["automatic_outcome"],
        "possible": row["possible"].split(),
    }


def _pictured(slide: str, rows: pd.DataFrame, pictures: Pictures) -> dict[str, str]:
    picture = pictures.thumbnail(slide)
    address = data_address(picture, "jpeg") if picture else ""
    return {"name": slide, "outcome": _text(rows["outcome"].get(slide)), "thumbnail": address}


def _text(value: object) -> str:
    """A value of a table as text, empty if missing."""
    return value if isinstance(value, str) else ""
