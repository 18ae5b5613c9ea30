"""The web page in a browser, as a pathologist's assistant uses it."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser, Locator, Page

from doctogres.app.cases import Status
from doctogres.app.findings import percent
from doctogres.serving.client import ask
from doctogres.slides.images import encode_png
from tests.browsers import browser
from tests.servers import ROOT, as_json, free_port, processes_below, running
from tests.serving.drawn_requests import files

__all__ = ["browser"]
pytestmark = pytest.mark.slow
PATIENCE = 120_000  # ms
A4 = 297 / 25.4 * 96  # px, its height


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
        assert page.locator(".stException").count() == 0
        page.close()
    assert address in asked[0]
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def drop(page: Page, paths: Sequence[Path], *, slides: int, place: int = 0) -> None:
    """Drops files on a place, and waits until the table has so many rows."""
    page.locator("input[type=file]").nth(place).set_input_files(paths)
    page.locator(".slides tbody tr").nth(slides - 1).wait_for()


def classify(page: Page) -> None:
    """Presses the button, and waits for the last answer."""
    page.get_by_role("button", name="Classify").click()
    await_answers(page)


def await_answers(page: Page) -> None:
    """Waits until every slide of the table has an answer."""
    page.get_by_role("status").filter(has_not_text="waiting").wait_for()
    page.locator(".slides:not(:has-text('Waiting')) button.sort").first.wait_for()


def table(page: Page) -> dict[str, list[str]]:
    """The cells of every slide by its name, without the sign before the result."""
    page.locator(".slides button.sort").first.wait_for()
    rows = page.locator(".slides tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    )
    return {row[0]: [row[1], row[2].split(" ", 1)[1], *row[3:]] for row in rows}


def one_slide(page: Page, *paths: Path) -> str:
    """Opens the page anew and classifies a slide, with its mask if there is one; everything that it says of it."""
    page.reload()
    page.get_by_role("button", name="Classify").wait_for()
    drop(page, paths, slides=1)
    classify(page)
    page.locator(".notice.error, .patches").first.wait_for()
    return "\n".join(page.locator(".notice, .subtype, .patches").all_inner_texts())


def drawn(folder: Path, number: int, **drawing: Any) -> list[Path]:
    """The files of a slide, `S3.png` and `S3_mask.png`."""
    paths = [folder / f"S{number}.png", folder / f"S{number}_mask.png"]
    for path, content in zip(paths, files(number, **drawing).values(), strict=True):
        path.write_bytes(content)
    return paths


def displayed(picture: Locator) -> int:
    """The width of a picture in its own pixels, once it is decoded."""
    width: int = picture.evaluate("image => image.decode().then(() => image.naturalWidth)")
    return width


def test_an_assistant_classifies_twenty_slides(browser: Browser, address: str, tmp_path: Path) -> None:
    paths = [path for number in range(20) for path in drawn(tmp_path, number)]
    (tmp_path / "S4.png").write_bytes(b"hello")
    (tmp_path / "S7_mask.png").rename(tmp_path / "lost_mask.png")
    paths = sorted(path for path in [*paths, tmp_path / "lost_mask.png"] if path.exists())
    with page_of(browser, address, tmp_path / "log") as page:
        drop(page, paths, slides=21)
        assert page.get_by_role("status").inner_text() == "20 slides: 20 waiting."
        page.get_by_role("button", name="Classify").click()
        page.get_by_text(re.compile(r"Classifying slide \d+ of 20")).wait_for()
        await_answers(page)
        rows = table(page)
        for number in set(range(20)) - {4, 7}:
            (answer,) = ask(address, as_json(files(number)))
            status = Status.NOT_SURE if answer["abstained"] else Status.SURE
            expected = [f"S{number}_mask.png", status, answer["label"], percent(answer["confidence"])]
            assert rows[f"S{number}.png"][:4] == expected
        assert rows["S4.png"] == [
            "S4_mask.png",
            "Refused",
            "",
            "",
            "S4.png is not a picture this project reads; give a PNG, JPEG or TIFF file",
        ]
        assert rows["S7.png"][0] == "none"
        assert "no lesion mask: tiles of the tissue were classified" in rows["S7.png"][-1]
        assert rows["none"][:2] == ["lost_mask.png", "Refused"]
        assert "no slide belongs to the mask lost_mask.png" in rows["none"][-1]
        counts = {status: sum(row[1] == status for row in rows.values()) for status in Status}
        assert counts[Status.SURE]
        assert counts[Status.SURE] + counts[Status.NOT_SURE] == 19
        assert f"{counts[Status.SURE]} sure" in page.get_by_role("status").inner_text()
        sorts_and_shows(page)
        downloads(browser, page, tmp_path)
        changes_a_file(page, address, tmp_path)
        for width in (500, 1000, 1440):
            page.set_viewport_size({"width": width, "height": 1000})
            assert page.locator("[data-testid=stMain]").evaluate("main => main.scrollWidth - main.clientWidth") == 0


def sorts_and_shows(page: Page) -> None:
    """With the keyboard only: sorts by probability, both ways, and shows a slide."""
    heading = page.get_by_role("columnheader", name="Probability")
    heading.get_by_role("button").focus()
    for direction in ("ascending", "descending"):
        page.keyboard.press("Enter")
        assert heading.get_attribute("aria-sort") == direction
        texts = page.locator(".slides tbody td:nth-child(5)").all_inner_texts()
        shown = [int(found[0]) for text in texts if (found := re.findall(r"\d+", text))]
        assert shown == sorted(shown, reverse=direction == "descending")
    button = page.locator(".slides").get_by_role("button", name="S12.png")
    button.focus()
    page.keyboard.press("Enter")
    page.locator(".subtype", has_text="Slide S12.png, mask S12_mask.png").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "S12.png"
    assert button.get_attribute("aria-pressed") == "true"
    assert displayed(page.get_by_alt_text("the slide S12.png with the lesion mask outlined")) == 300
    assert page.locator("img:not([alt]), img[alt=''], img[alt='0']").count() == 0


def downloads(browser: Browser, page: Page, folder: Path) -> None:
    """The CSV file, and the sheet, of which every slide fits on a page of A4."""
    for name in ("Table (CSV)", "Sheet for printing"):
        with page.expect_download() as started:
            page.get_by_role("button", name=name).click()
        started.value.save_as(folder / started.value.suggested_filename)
    saved = pd.read_csv(folder / "predictions.csv", keep_default_na=False).set_index("slide_id")
    assert {f"{name}.png": label for name, label in saved["label"].items() if label} == {
        name: row[2] for name, row in table(page).items() if row[1] != Status.REFUSED
    }
    sheet = browser.new_page()
    sheet.goto((folder / "slides.html").as_uri())
    sheet.emulate_media(media="print")
    sheet.set_viewport_size({"width": 680, "height": 900})  # A4 without its margins
    assert sheet.get_by_role("button").count() == 0
    assert sheet.locator("article").count() == 21
    assert max(sheet.locator("article").evaluate_all("all => all.map(one => one.offsetHeight)")) < A4 / 2
    assert all(displayed(picture) == 300 for picture in sheet.locator("img").all())
    assert sheet.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    sheet.close()


def changes_a_file(page: Page, address: str, folder: Path) -> None:
    """Exchanges a mask: the answer of its slide disappears, and that of no other."""
    before = table(page)
    page.get_by_role("button", name="Remove S12_mask.png").click()
    page.locator(".slides tr", has_text="S12.png").get_by_text("Waiting").wait_for()
    page.locator(".subtype", has_text="S12.png").wait_for(state="detached")
    mask = files(12, lesions=2)["mask"]
    (folder / "S12.png").write_bytes(mask)
    page.locator("input[type=file]").nth(1).set_input_files(folder / "S12.png")
    page.locator(".slides tr", has_text="S12.png").get_by_role("cell", name="S12.png", exact=True).wait_for()
    after = table(page)
    assert after.pop("S12.png")[:3] == ["S12.png", "Waiting", ""]
    assert after == {name: row for name, row in before.items() if name != "S12.png"}
    classify(page)
    (answer,) = ask(address, as_json(files(12) | {"mask": mask}))
    assert table(page)["S12.png"][2:4] == [answer["label"], percent(answer["confidence"])]


def test_an_answer_is_shown_with_everything_that_the_server_said(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    slide, mask = tmp_path / "<b>*1* ![x](y).png", tmp_path / "<b>*1* ![x](y)_mask.png"
    slide.write_bytes(files(1)["image"])
    mask.write_bytes(files(1)["mask"])
    (answer,) = ask(address, as_json(files(1)))
    with page_of(browser, address, tmp_path / "log") as page:
        shown = one_slide(page, slide, mask)
        assert f"Slide {slide.name}, mask {mask.name}" in shown
        assert page.locator(".subtype h2").inner_text() == answer["label"]
        assert f"probability {percent(answer['confidence'])}" in shown
        assert "doctogres/1" in shown
        assert page.locator(".notice").count() == 0
        for name, share in answer["probabilities"].items():
            assert page.locator(".subtype").get_by_role("row", name=name).inner_text().split("\t")[-1] == percent(share)
        assert displayed(page.locator(".stImage img")) == 300
        sizes = page.locator(".patches img").evaluate_all(
            "all => all.map(one => [one.naturalWidth, one.naturalHeight])"
        )
        assert sorted(sizes) == sorted([patch["width"], patch["height"]] for patch in answer["patches"])
        for text in ("For research use; not a medical device", f"Slides are sent to {address}"):
            assert page.get_by_text(text).is_visible()

        shown = one_slide(page, slide)
        assert "No lesion mask: tiles of the tissue were classified" in shown
        assert "no mask was given" in shown

        mask.write_bytes(encode_png(np.ones((9, 9), np.bool_)))
        shown = one_slide(page, slide, mask)
        assert f"{mask.name} has 9 x 9 pixels, {slide.name} 300 x 200; give the mask of this picture" in shown
        assert page.locator(".subtype").count() == 0

        mask.write_bytes(encode_png(np.zeros((200, 300), np.bool_)))
        assert "the mask is empty, so there is no lesion to classify" in one_slide(page, slide, mask)


def test_the_sample_slide_is_classified_until_a_file_is_dropped(browser: Browser, address: str, tmp_path: Path) -> None:
    with page_of(browser, address, tmp_path / "log") as page:
        page.get_by_role("button", name="Classify").click()
        page.get_by_text("Choose slide images first, or try the sample slide.").wait_for()
        page.get_by_role("button", name="Try a sample slide").click()
        page.locator(".patches").wait_for()
        await_answers(page)
        assert table(page)["sample.png"][0] == "sample_mask.png"
        assert page.get_by_text("The sample slide is synthetic").is_visible()
        page.locator("input[type=file]").first.set_input_files(drawn(tmp_path, 1))
        page.locator(".slides tr", has_text="S1.png").wait_for()
        assert list(table(page)) == ["S1.png"]
        page.locator(".patches").wait_for(state="detached")  # when the page has run to its end


def test_without_a_model_the_page_says_whom_to_ask(browser: Browser, tmp_path: Path) -> None:
    large = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)  # a file that web servers put on disk
    for name in ("S1.png", "S2.png"):
        (tmp_path / name).write_bytes(encode_png(large))
    with page_of(browser, f"http://127.0.0.1:{free_port()}", tmp_path / "log") as page:
        drop(page, [tmp_path / "S1.png", tmp_path / "S2.png"], slides=2)
        page.get_by_role("button", name="Classify").click()
        notice = page.locator(".notice.error")
        notice.wait_for()
        assert "does not answer. Ask the person who looks after it to start it" in notice.inner_text()
        assert notice.count() == 1
        assert [row[1] for row in table(page).values()] == ["Waiting", "Waiting"]


def test_every_upload_is_in_memory_once(browser: Browser, tmp_path: Path) -> None:
    size = 10 * 2**20
    for number in range(20):
        (tmp_path / f"S{number}.png").write_bytes(os.urandom(size))
    with page_of(browser, f"http://127.0.0.1:{free_port()}", tmp_path / "log") as page:
        page.get_by_role("button", name="Classify").wait_for()
        (process,) = [process for process, words in processes_below() if "doctogres.app" in words]
        before = process.memory_info().rss
        drop(page, sorted(tmp_path.glob("S*.png")), slides=20)
        page.locator(".slides").get_by_role("button", name="S7.png").click()  # runs the page once more
        page.locator(".slides tr", has_text="S7.png").locator("[aria-pressed=true]").wait_for()
        assert process.memory_info().rss - before < 1.5 * 20 * size
