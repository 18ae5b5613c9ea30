"""The page, a Streamlit script: it runs when the page is opened, and again whenever files change or something is pressed.

Uploads and answers stay in memory. File and model names are shown as escaped HTML, because Streamlit would interpret
them as Markdown.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import streamlit as st
from markupsafe import Markup
from streamlit.runtime.uploaded_file_manager import UploadedFile

from doctogres.app.__main__ import LARGEST_FILE, LARGEST_TOGETHER, options
from doctogres.app.cases import Case, Result, classified, counted
from doctogres.app.findings import Notice, notices, notices_html, overlay_text, patches_html, subtype_html
from doctogres.app.sample import sample
from doctogres.app.sentences import unavailable
from doctogres.app.tables import csv_file, sheet_html, table_html
from doctogres.app.uploads import Pair, Upload, megabytes, paired
from doctogres.serving.client import ServerError
from doctogres.slides.layout import FORMAT_NAMES, OUTLINES, SUFFIXES
from doctogres.slides.opening import open_slide

FILES = [suffix.removeprefix(".") for suffix in (*SUFFIXES, OUTLINES)]
BOXES = "Boxes: classified patches, in the subtypes' colours mixed by probability."
HERE = Path(__file__)
PURPOSE = Markup(
    "<p><b>For research use; not a medical device.</b> Slides are sent to {} and nowhere else; this page stores nothing.</p>"
)
LIMITS = (
    f"{FORMAT_NAMES}, at most {LARGEST_FILE} MB each and {LARGEST_TOGETHER} MB together. A mask has the size of its slide and "
    "is white on black, or is a GeoJSON file of outlines. Without a mask, tiles of the tissue are classified."
)
NO_FILES = Notice("error", "No slide", "Choose slide images first, or try the sample slide.")
SAMPLE = "The sample slide is synthetic, made by this program; it is not a patient's."
COUNT = Markup('<p role="status">{}.</p>')


def dropped() -> tuple[list[Upload], list[Upload]]:
    """The files of the two places."""
    left, right = st.columns([3, 2])
    slides = left.file_uploader(
        "Drop slides (H&E) and their masks here: S1.png and S1_mask.png, or img_0001.png and mask_0001.png",
        type=FILES,
        accept_multiple_files=True,
    )
    masks = right.file_uploader(
        "Drop masks here that have their slides' names: S1.png (optional)",
        type=FILES,
        accept_multiple_files=True,
    )
    st.caption(LIMITS)
    return _uploads(slides), _uploads(masks)


def _uploads(files: Sequence[UploadedFile]) -> list[Upload]:
    return [Upload(file.name, file.getvalue(), file.file_id) for file in files]


def classify(pairs: Sequence[Pair], results: dict[str, Result]) -> None:
    """Asks for the slides that have no answer, or for all if none is left; the table grows with every answer."""
    usable = [pair for pair in pairs if not pair.problem]
    waiting = [pair for pair in usable if pair.key not in results or results[pair.key].refusal] or usable
    progress, table = st.empty(), st.empty()
    for number, pair in enumerate(waiting):
        progress.progress(number / len(waiting), f"Classifying slide {number + 1} of {len(waiting)} …")
        results.pop(pair.key, None)
        table.html(table_html(cases_of(pairs, results), pressable=False))
        try:
            results[pair.key] = classified(pair, given.url, given.timeout)
        except ServerError as error:
            st.html(notices_html([Notice("error", "Not classified", unavailable(error, given.url))]))
            break
    progress.empty()
    table.empty()


def cases_of(pairs: Sequence[Pair], results: Mapping[str, Result]) -> list[Case]:
    """Every pair with its result."""
    return [Case(pair, results.get(pair.key)) for pair in pairs]


def choose(cases: Sequence[Case]) -> Case:
    """Shows the table; the slide that was pressed in it, else the first one with an answer."""
    component = st.components.v2.component(
        "slides",
        html='<div class="table-of-slides"></div>',
        js=HERE.with_name("table.js").read_text(),
        isolate_styles=False,
    )
    keys = {case.pair.key: case for case in cases}
    pressed = st.session_state.get("table", {}).get("chosen")
    chosen = pressed if pressed in keys else next((key for key in keys if keys[key].answer), next(iter(keys)))
    html = str(table_html(cases, pressable=True))
    component(key="table", data={"html": html, "chosen": chosen}, on_chosen_change=lambda: None)
    return keys[chosen]


def offer_files(cases: Sequence[Case]) -> None:
    """The buttons that make the files, when they are pressed."""
    row = st.container(horizontal=True)
    row.download_button(
        "Table (CSV)",
        lambda: csv_file(cases),
        "predictions.csv",
        "text/csv",
        on_click="ignore",
        icon=":material/table:",
    )
    row.download_button(
        "Sheet for printing",
        lambda: sheet_html(cases),
        "slides.html",
        "text/html",
        on_click="ignore",
        icon=":material/print:",
    )


def show(case: Case) -> None:
    """The answer for one slide."""
    if not case.answer:
        if case.refusal:
            st.html(notices_html([Notice("error", f"{case.pair.title}: not classified", case.refusal)]))
        return
    answer, pair = case.answer, case.pair
    assert pair.slide
    assert case.result
    st.html(notices_html(notices(answer)))
    left, right = st.columns([2, 3])
    left.html(subtype_html(answer, slide=pair.slide.name, mask=pair.mask.name if pair.mask else ""))
    caption = BOXES if answer["mask_source"] == "tissue" else f"Outlines: the lesion mask. {BOXES}"
    right.image(case.result.overlay, caption=caption, alt=overlay_text(answer, pair.slide.name))
    st.html(patches(case))


def patches(case: Case) -> str:
    """The classified patches; kept until another slide is shown, because cutting them takes a while."""
    key = (case.pair.key, case.result)
    if st.session_state.get("patches", ("", ""))[0] != key and case.pair.slide:
        slide = open_slide(case.pair.slide.content, name=case.pair.title)
        st.session_state["patches"] = (key, patches_html(case.answer, slide))
    html: str = st.session_state["patches"][1]
    return html


given = options()
st.set_page_config(page_title="doctogres", page_icon="🔬", layout="wide")
st.html(HERE.with_name("page.css"))
st.title("Slide subtypes")
st.html(PURPOSE.format(given.url))
slides, masks = dropped()
row = st.container(horizontal=True)
pressed = row.button("Classify", type="primary")
tried = row.button("Try a sample slide", disabled=bool(slides or masks))
st.session_state["sample"] = not (slides or masks) and (tried or st.session_state.get("sample", False))
pairs = [sample()] if st.session_state["sample"] else paired(slides, masks)
results: dict[str, Result] = st.session_state.setdefault("results", {})
for key in results.keys() - {pair.key for pair in pairs}:  # of files that were changed
    del results[key]
if (size := megabytes([*slides, *masks])) > LARGEST_TOGETHER:
    too_large = f"They have {size:.0f} MB together, more than the {LARGEST_TOGETHER} MB that fit; remove some of them."
    st.html(notices_html([Notice("error", "Too many files at once", too_large)]))
elif not pairs:
    if pressed:
        st.html(notices_html([NO_FILES]))
else:
    if pressed or tried:
        classify(pairs, results)
    if st.session_state["sample"]:
        st.caption(SAMPLE)
    cases = cases_of(pairs, results)
    st.html(COUNT.format(counted(cases)))
    chosen = choose(cases)
    if results:
        offer_files(cases)
    show(chosen)
