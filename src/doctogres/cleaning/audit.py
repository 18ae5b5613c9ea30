"""The audit page: one self-contained HTML file that shows every slide that is not plainly kept, and why.

It reads without its script; with it, the page writes the CSV of decisions that the stage takes back. MLflow shows
it in a frame that allows scripts but neither downloads nor the clipboard's newer interface.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pandas as pd

from doctogres.cleaning.decisions import REPAIR
from doctogres.cleaning.evidence import Evidence
from doctogres.pages import page
from doctogres.slides.images import data_address
from doctogres.slides.reasons import Reason, parsed
from doctogres.slides.table import DROPPED, KEPT, REPAIRED, REVIEW, usable

# In the order of the page: what needs a person comes first.
SECTIONS: Final = {
    REVIEW: ("For review", "The measurements do not decide. These slides are used until somebody drops them."),
    REPAIRED: ("Repaired", "The splat is cut out of the mask; the slide is used."),
    DROPPED: ("Dropped", "These slides are not used."),
    KEPT: ("Kept, with a remark", "These slides are used."),
}
SHARED: Final = {
    "mask": "one mask, byte for byte",
    "picture": "one picture, byte for byte",
    "near-copy": "near-copies: turned, saved again, or with a splat",
}


def render_audit(
    table: pd.DataFrame,
    shares: pd.DataFrame,
    twins: pd.DataFrame,
    reviewed: pd.DataFrame,
    evidence: Mapping[str, Evidence],
    *,
    title: str = "Cleaning audit",
) -> str:
    """The page for a cohort table, with the tables and the evidence of `CleanResult` and `clean_cohort`."""
    rows = table.set_index("slide_id", drop=False)
    counts = table["outcome"].value_counts()
    tiles = {outcome: int(counts.get(outcome, 0)) for outcome in (KEPT, REVIEW, REPAIRED, DROPPED)}
    return page(
        __package__,
        "audit.html",
        title=title,
        found=len(table),
        used=len(usable(table)),
        tiles=tiles | {"decided by a person": int((reviewed["decision"] != "").sum())},
        reasons=_reasons(table),
        shares=shares.to_dict("records"),
        twins=_twin_groups(twins),
        sections=list(
            _sections(rows, {row["slide_id"]: _card(row, rows, evidence) for row in reviewed.to_dict("records")})
        ),
    )


def _reasons(table: pd.DataFrame) -> list[tuple[Reason, str, int]]:
    """Every reason with an outcome that it led to and how many slides it did, in the order of the page."""
    reasoned = table[table["reason"] != ""]
    counts = Counter(zip(map(Reason.of, reasoned["reason"]), reasoned["outcome"], strict=True))
    return [
        (reason, outcome, count)
        for outcome in SECTIONS
        for (reason, of), count in counts.most_common()
        if reason and of == outcome
    ]


def _twin_groups(twins: pd.DataFrame) -> dict[str, list[list[dict[Any, Any]]]]:
    """The slides of every group, by what they share."""
    groups: dict[str, list[list[dict[Any, Any]]]] = {}
    for (shared, _), members in twins.groupby(["shared", "group"], sort=False):
        groups.setdefault(SHARED[str(shared)], []).append(members.to_dict("records"))
    return groups


def _sections(rows: pd.DataFrame, cards: Mapping[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The page's headings, each with the cards of its slides by reason."""
    for outcome, (heading, what) in SECTIONS.items():
        shown = rows[rows["slide_id"].isin(cards.keys()) & (rows["outcome"] == outcome)]
        by_reason = shown.groupby(shown["reason"].map(Reason.of), sort=True)
        codes = {code: [cards[slide] for slide in group.index] for code, group in by_reason}
        if codes:
            yield {"heading": heading, "what": what, "slides": len(shown), "codes": codes}


def _card(row: Mapping[Any, Any], rows: pd.DataFrame, evidence: Mapping[str, Evidence]) -> dict[str, Any]:
    """What the page shows of a slide."""
    slide, twin = row["slide_id"], _text(row["twin_of"])
    found, splat = evidence.get(slide), ""
    if found is not None and REPAIR in row["possible"]:
        left = f"{found.lesion_left} of {found.lesion_pixels} lesion pixels are left without it"
        splat = f"splat: {found.splat_share:.2%} of the picture; {left}"
    code, sentence = parsed(row["machine_reason"])
    return {
        "slide": _pictured(slide, rows, evidence),
        "twin": _pictured(twin, rows, evidence) if twin else None,
        "label": _text(row["label"]),
        "other_label": _text(row["twin_label"]) if twin and row["label"] != row["twin_label"] else None,
        "splat": splat,
        "code": code,
        "sentence": sentence,
        "decision": row["decision"],
        "why": _text(row["reason"]),
        "machine": row["machine_outcome"],
        "possible": row["possible"].split(),
    }


def _pictured(slide: str, rows: pd.DataFrame, evidence: Mapping[str, Evidence]) -> dict[str, str]:
    found = evidence.get(slide)
    thumbnail = data_address(found.thumbnail, "jpeg") if found and found.thumbnail else ""
    return {"name": slide, "outcome": _text(rows["outcome"].get(slide)), "thumbnail": thumbnail}


def _text(value: object) -> str:
    """A value of a table, empty where it is missing."""
    return value if isinstance(value, str) else ""
