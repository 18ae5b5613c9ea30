"""The page, a Streamlit script: it runs when the page is opened and every time the button is pressed.

Uploads and answers stay in memory. File and model names are shown as escaped HTML, because Streamlit would interpret
them as Markdown.
"""

import base64
from pathlib import Path

import streamlit as st
from markupsafe import Markup

from doctogres.app.__main__ import options
from doctogres.app.findings import Notice, notices, notices_html, patches_html, subtype_html
from doctogres.errors import DoctogresError
from doctogres.serving.client import RefusedError, ask, slide_body
from doctogres.slides.images import read_rgb
from doctogres.slides.layout import FORMAT_NAMES, SUFFIXES

PICTURES = [suffix.removeprefix(".") for suffix in SUFFIXES]
BOXES = "Boxes: classified patches, in the subtypes' colours mixed by probability."

given = options()
st.set_page_config(page_title="doctogres", page_icon="🔬", layout="wide")
st.html(Path(__file__).with_name("page.css"))
st.title("Slide subtype")
purpose = Markup(
    "<p><b>For research use; not a medical device.</b> Slides are sent to {} and nowhere else; this page stores nothing.</p>"
)
st.html(purpose.format(given.url))

with st.form("slide", border=False):
    left, right = st.columns(2)
    slide = left.file_uploader(f"Slide (H&E): {FORMAT_NAMES}", type=PICTURES)
    mask = right.file_uploader("Lesion mask: same size as the slide, white on black (optional)", type=PICTURES)
    pressed = st.form_submit_button("Classify", type="primary")

if pressed and slide is None:
    st.html(notices_html([Notice("error", "No slide", "Choose a slide image first.")]))
elif pressed and slide is not None:
    try:
        picture = slide.getvalue()
        name = Path(slide.name).stem[:200]  # the server's limit
        body = slide_body(name, picture, mask.getvalue() if mask else None, overlay=True)
        with st.spinner("Classifying the slide …"):
            (answer,) = ask(given.url, body, timeout=given.timeout)
        st.html(notices_html(notices(answer)))
        if answer["label"]:
            left, right = st.columns([2, 3])
            left.html(subtype_html(answer))
            caption = BOXES if answer["mask_source"] == "tissue" else f"Outlines: the lesion mask. {BOXES}"
            right.image(base64.b64decode(answer["overlay"]), caption=caption, output_format="PNG")
            st.html(patches_html(answer, read_rgb(picture, name=slide.name)))
    except RefusedError as error:
        st.html(notices_html([Notice("error", "Not classified", error.sentence)]))
    except DoctogresError as error:
        st.html(notices_html([Notice("error", "Not classified", str(error))]))
