"""The audit page: one self-contained HTML file that shows every slide that is not plainly kept, and why.

It reads without its script; with it, the page writes the CSV of decisions that the stage takes back. MLflow shows
it in a frame that allows scripts but neither downloads nor the clipboard's newer interface.
"""

from collections import Counter
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any, Final

import pandas as pd

from doctogres.cleaning.decisions import REPAIR
from doctogres.cleaning.evidence import Evidence
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
    cards = {str(row["slide_id"]): _slide(row, rows, evidence) for row in reviewed.to_dict("records")}
    sections = "".join(_section(outcome, rows, cards) for outcome in SECTIONS)
    style, script = (
        files("doctogres.cleaning").joinpath(name).read_text("utf-8") for name in ("audit.css", "audit.js")
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{style}</style></head><body>
<h1>{escape(title)}</h1>
<p class="soft">{len(table)} slides found, {len(usable(table))} of them used. Below: the numbers, then every slide that is
not plainly kept, beside its twin. To overrule the machine, fill in the column <code>decision</code> of
<code>decisions.csv</code>, which lies beside this page, and give it back with <code>-P decisions=FILE</code>.</p>
{_tiles(table, reviewed)}
<div class="columns"><section><h2>Reasons</h2>{_reasons(table)}</section>
<section><h2>Classes</h2>{_shares(shares)}</section></div>
{_twin_groups(twins)}
{sections}
{DECISIONS if cards else ""}
<script>{script}</script>
</body></html>
"""


DECISIONS: Final = """<section id="decisions" hidden><h2>Your decisions</h2>
<p class="soft">What you chose above, as the CSV to give back with <code>-P decisions=FILE</code>. It is not stored: copy it
into a file, or download it (which works when this page is opened as a file of its own).</p>
<textarea rows="8" readonly spellcheck="false" aria-label="CSV of decisions"></textarea>
<p><button type="button">Copy</button> <a download="decisions.csv">Download decisions.csv</a>
<span class="soft" role="status"></span></p></section>
<div id="count" hidden><output></output> <button type="button">Show the CSV</button></div>"""


def _tiles(table: pd.DataFrame, reviewed: pd.DataFrame) -> str:
    counts = table["outcome"].value_counts()
    numbers = {outcome: int(counts.get(outcome, 0)) for outcome in (KEPT, REVIEW, REPAIRED, DROPPED)}
    numbers["decided by a person"] = int((reviewed["decision"] != "").sum())
    tiles = (f"<li><strong>{count}</strong> {escape(name)}</li>" for name, count in numbers.items())
    return f'<ul class="tiles">{"".join(tiles)}</ul>'


def _reasons(table: pd.DataFrame) -> str:
    reasoned = table[table["reason"] != ""]
    if reasoned.empty:
        return "<p>Every slide is kept.</p>"
    counts = Counter(zip(map(Reason.of, reasoned["reason"]), reasoned["outcome"], strict=True))
    rows = "".join(
        f'<tr><td><code>{escape(reason)}</code></td><td>{escape(outcome)}</td><td class="number">{count}</td>'
        f"<td>{escape(reason.remedy)}</td></tr>"
        for outcome in SECTIONS
        for (reason, of), count in counts.most_common()
        if reason and of == outcome
    )
    head = '<th>reason</th><th>outcome</th><th class="number">slides</th><th>what to do</th>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _shares(shares: pd.DataFrame) -> str:
    rows = "".join(
        f'<tr><td>{escape(str(row["label"]))}</td><td class="number">{row["slides_before"]}</td>'
        f'<td class="number">{row["share_before"]:.1%}</td><td class="number">{row["slides_after"]}</td>'
        f'<td class="number">{row["share_after"]:.1%}</td></tr>'
        for row in shares.to_dict("records")
    )
    head = "<th>class</th>" + "".join(
        f'<th class="number">{name}</th>' for name in ("before", "share", "used", "share")
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _twin_groups(twins: pd.DataFrame) -> str:
    if twins.empty:
        return ""
    members: dict[str, dict[str, list[str]]] = {}
    for row in twins.to_dict("records"):
        members.setdefault(row["shared"], {}).setdefault(row["group"], []).append(_member(row))
    parts = []
    for shared, groups in members.items():
        rows = "".join(f"<tr><td>{', '.join(group)}</td></tr>" for group in groups.values())
        parts.append(
            f"<details><summary>{len(groups)} group{'s' * (len(groups) > 1)} of {escape(SHARED[shared])}</summary>"
            f"<table><tbody>{rows}</tbody></table></details>"
        )
    return f"<h2>Twin groups</h2>{''.join(parts)}"


def _member(row: Mapping[Any, Any]) -> str:
    return f'{escape(row["slide_id"])} <span class="soft">{escape(row["label"])}, {escape(row["outcome"])}</span>'


def _section(outcome: str, rows: pd.DataFrame, cards: Mapping[str, str]) -> str:
    heading, what = SECTIONS[outcome]
    shown = rows[rows["slide_id"].isin(cards.keys()) & (rows["outcome"] == outcome)]
    if shown.empty:
        return ""
    parts = [
        f"<h3><code>{escape(str(code))}</code> <span>{len(group)}</span></h3>{''.join(map(cards.__getitem__, group.index))}"
        for code, group in shown.groupby(shown["reason"].map(Reason.of), sort=True)
    ]
    return f'<h2>{heading} <span>{len(shown)}</span></h2><p class="soft">{what}</p>{"".join(parts)}'


def _slide(row: Mapping[Any, Any], rows: pd.DataFrame, evidence: Mapping[str, Evidence]) -> str:
    slide, twin, found = row["slide_id"], row["twin_of"], evidence.get(row["slide_id"])
    pictures = _figure(slide, rows, evidence)
    flags = [f"label: {_text(row['label']) or 'none'}"]
    if _text(twin):
        pictures += _figure(twin, rows, evidence)
        if row["label"] != row["twin_label"]:
            flags.append(f"<mark>the twin's label is {_text(row['twin_label']) or 'none'}</mark>")
    if found is not None and REPAIR in row["possible"]:
        left = f"{found.lesion_left} of {found.lesion_pixels} lesion pixels are left without it"
        flags.append(f"splat: {found.splat_share:.2%} of the picture; {left}")
    code, sentence = parsed(row["machine_reason"])
    said = ": ".join(filter(None, [code and f"<code>{_text(code)}</code>", _text(sentence)]))
    if row["decision"]:
        why = f": {_text(row['reason'])}" if row["reason"] else ""
        machine = ", ".join(filter(None, [row["machine_outcome"], said]))
        said = f"<strong>A person decided to {row['decision']} it{why}.</strong><br>The machine says {machine}"
    return (
        f'<article data-slide="{_text(slide)}"><div class="pictures">{pictures}</div><div><h4>{_text(slide)}</h4>'
        f'<p class="soft">{" · ".join(flags)}</p><p>{said}</p>{_choice(row)}</div></article>\n'
    )


def _choice(row: Mapping[Any, Any]) -> str:
    """The controls that the page's script brings to life."""
    name = f"of-{_text(row['slide_id'])}"
    buttons = "".join(
        f'<label><input type="radio" name="{name}" value="{value}"{" checked" * (value == row["decision"])}>'
        f"{value or 'as the machine says'}</label>"
        for value in ("", *row["possible"].split())
    )
    why = f'<input type="text" placeholder="why (optional)" aria-label="reason" value="{_text(row["reason"])}">'
    return f'<fieldset hidden><legend class="soft">Decision</legend>{buttons}{why}</fieldset>'


def _figure(slide: str, rows: pd.DataFrame, evidence: Mapping[str, Evidence]) -> str:
    name, found = _text(slide), evidence.get(slide)
    outcome = _text(rows["outcome"].get(slide))
    if found is None or found.thumbnail is None:
        return f"<figure><figcaption>{name}: no picture to show</figcaption></figure>"
    address = data_address(found.thumbnail, "jpeg")
    caption = f"{name} <span>{outcome}</span>"
    return f'<figure><img alt="{name}" src="{address}"><figcaption>{caption}</figcaption></figure>'


def _text(value: object) -> str:
    """A value of a table as HTML text, empty where it is missing."""
    return escape(value) if isinstance(value, str) else ""
