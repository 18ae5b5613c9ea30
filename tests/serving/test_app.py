"""The web page in a browser, as a pathologist uses it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from doctogres.app.findings import percent
from doctogres.serving.client import ask
from doctogres.slides.images import encode_png
from tests.browsers import browser
from tests.servers import ROOT, as_json, free_port, running
from tests.serving.drawn_requests import files

__all__ = ["browser"]
pytestmark = pytest.mark.slow
PATIENCE = 120_000  # ms


@contextmanager
def page_of(browser: Browser, model: str, log: Path) -> Iterator[Page]:
    """The page that asks the model, opened; it must load nothing from elsewhere, and write no temporary file."""
    address = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "doctogres.app", "--url", model, "--port", address.rsplit(":", 1)[1]]
    (log.parent / "sitecustomize.py").write_text("import tempfile\ntempfile.TemporaryFile = None\n")
    paths = {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{log.parent}"}
    environment = os.environ | paths | {"STREAMLIT_SERVER_HEADLESS": "true"}
    with running(command, f"{address}/_stcore/health", log, environment, seconds=120):
        page = browser.new_page(viewport={"width": 1280, "height": 1400})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.set_default_timeout(PATIENCE)
        page.goto(address)
        yield page
        page.close()
    assert address in asked[0]
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def classify(page: Page, *paths: Path) -> str:
    """Loads the page anew, drops slide and mask and waits; what stands under the button."""
    page.reload()
    for number, path in enumerate(paths):
        with page.expect_response(lambda response: "upload_file" in response.url and response.ok):
            page.locator("input[type=file]").nth(number).set_input_files(path)
        page.locator("[data-testid=stFileUploader]").nth(number).get_by_text(path.name).wait_for()
    page.get_by_role("button", name="Classify").click()
    page.locator(".notice.error, .patches, .stException").wait_for()
    assert page.locator(".stException").count() == 0
    return "\n".join(page.locator(".notice, .subtype, .patches").all_inner_texts())


def test_a_pathologist_reads_the_answer(browser: Browser, address: str, tmp_path: Path) -> None:
    slide, mask = tmp_path / "<b>*1* ![x](y).png", tmp_path / "mask.png"
    slide.write_bytes(files(1)["image"])
    mask.write_bytes(files(1)["mask"])
    (answer,) = ask(address, as_json(files(1)))
    with page_of(browser, address, tmp_path / "log") as page:
        shown = classify(page, slide, mask)
        assert slide.stem in shown
        assert page.locator(".subtype h2").inner_text() == answer["label"]
        assert f"probability {percent(answer['confidence'])}" in shown
        assert "doctogres/1" in shown
        assert page.locator(".notice").count() == 0
        for name, share in answer["probabilities"].items():
            assert page.get_by_role("row", name=name).inner_text().split("\t")[-1] == percent(share)
        assert page.locator(".stImage img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 300
        sizes = page.locator(".patches img").evaluate_all(
            "all => all.map(one => [one.naturalWidth, one.naturalHeight])"
        )
        assert sorted(sizes) == sorted([patch["width"], patch["height"]] for patch in answer["patches"])
        page.screenshot(path=tmp_path / "wide.png")
        page.set_viewport_size({"width": 500, "height": 1400})
        page.screenshot(path=tmp_path / "narrow.png")
        assert page.locator("[data-testid=stMain]").evaluate("main => main.scrollWidth - main.clientWidth") == 0
        for text in ("For research use; not a medical device", f"Slides are sent to {address}"):
            assert page.get_by_text(text).is_visible()

        shown = classify(page, slide)
        assert "No lesion mask: all tissue was classified" in shown
        assert "no mask was given" in shown

        mask.write_bytes(encode_png(np.ones((9, 9), np.bool_)))
        shown = classify(page, slide, mask)
        assert "(mask) has 9 x 9 pixels, " in shown
        assert "(image) 300 x 200; give the mask of this picture" in shown
        assert page.locator(".subtype").count() == 0

        slide.write_bytes(b"hello")
        assert "(image) is not a picture" in classify(page, slide)
        mask.write_bytes(encode_png(np.zeros((200, 300), np.bool_)))
        slide.write_bytes(files(1)["image"])
        assert "the mask is empty, so there is no lesion to classify" in classify(page, slide, mask)
        assert "Choose a slide image first" in classify(page)


def test_without_a_model_the_page_says_how_to_start_one(browser: Browser, tmp_path: Path) -> None:
    large = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)  # a file that web servers put on disk
    (tmp_path / "slide.png").write_bytes(encode_png(large))
    with page_of(browser, f"http://127.0.0.1:{free_port()}", tmp_path / "log") as page:
        shown = classify(page, tmp_path / "slide.png")
        assert "does not answer" in shown
        assert "make serve" in shown
