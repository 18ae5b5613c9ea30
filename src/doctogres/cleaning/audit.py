"""The audit page: one self-contained HTML file that shows every slide that is not plainly kept, and why."""

import base64
import html
from collections.abc import Mapping

import pandas as pd

from doctogres.cohort import KEPT, reason_code

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 0 0 1.5rem; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #8886; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
td.pictures { width: 470px; }
figure { display: inline-block; margin: 0 .4rem .4rem 0; vertical-align: top; }
img { display: block; max-width: 220px; max-height: 220px; border: 1px solid #8886; }
figcaption, .code { font-size: .85em; opacity: .8; }
"""


def render_audit(
    table: pd.DataFrame, shares: pd.DataFrame, thumbnails: Mapping[str, bytes], *, title: str = "Cleaning audit"
) -> str:
    """The page for a cohort table, its class shares before and after, and the slides' thumbnails (JPEG files)."""
    outcomes = table["outcome"].value_counts()
    reasons = table.loc[table["reason"] != "", "reason"].map(reason_code).value_counts()
    shown = table[(table["outcome"] != KEPT) | (table["reason"] != "")]
    slides = "\n".join(_slide(row, thumbnails) for row in shown.to_dict("records"))
    empty = "" if len(shown) else "<p>Every slide is kept.</p>"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{html.escape(title)}</h1>
<p>{len(table)} slides found. Below the counts: every slide that is not plainly kept, beside its twin.</p>
<h2>Outcomes</h2>{_counts(outcomes, "outcome")}
<h2>Reasons</h2>{_counts(reasons, "reason") if len(reasons) else "<p>None.</p>"}
<h2>Classes before and after</h2>{_shares(shares)}
<h2>Slides</h2>{empty}
<table><tbody>
{slides}
</tbody></table>
</body></html>
"""


def _counts(counts: "pd.Series[int]", what: str) -> str:
    rows = "".join(
        f'<tr><td>{html.escape(str(name))}</td><td class="number">{count}</td></tr>' for name, count in counts.items()
    )
    return f"<table><thead><tr><th>{what}</th><th>slides</th></tr></thead><tbody>{rows}</tbody></table>"


def _shares(shares: pd.DataFrame) -> str:
    rows = "".join(
        f'<tr><td>{html.escape(str(row["label"]))}</td><td class="number">{row["slides_before"]}</td>'
        f'<td class="number">{row["share_before"]:.1%}</td><td class="number">{row["slides_after"]}</td>'
        f'<td class="number">{row["share_after"]:.1%}</td></tr>'
        for row in shares.to_dict("records")
    )
    head = "<th>class</th><th>before</th><th>share</th><th>after</th><th>share</th>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _slide(row: Mapping[object, object], thumbnails: Mapping[str, bytes]) -> str:
    slide, twin = str(row["slide_id"]), row["twin_of"]
    pictures = _figure(slide, thumbnails)
    if isinstance(twin, str):
        pictures += _figure(twin, thumbnails)
    label = row["label"] if isinstance(row["label"], str) else "no label"
    code, _, sentence = str(row["reason"]).partition(": ")
    return (
        f'<tr><td class="pictures">{pictures}</td><td><strong>{html.escape(slide)}</strong> '
        f'<span class="code">{html.escape(label)}</span><br>{html.escape(str(row["outcome"]))}: '
        f"{html.escape(code)}<br>{html.escape(sentence)}</td></tr>"
    )


def _figure(slide: str, thumbnails: Mapping[str, bytes]) -> str:
    name = html.escape(slide)
    if slide not in thumbnails:
        return f"<figure><figcaption>{name}: no picture to show</figcaption></figure>"
    data = base64.b64encode(thumbnails[slide]).decode()
    return f'<figure><img alt="{name}" src="data:image/jpeg;base64,{data}"><figcaption>{name}</figcaption></figure>'
