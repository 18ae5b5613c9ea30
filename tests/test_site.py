"""`make docs`: the documents as a site, in which every link leads somewhere and no page asks another host for anything."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browsers import browser
from tests.servers import ROOT
from tests.stores import made_once, plain_environment

__all__ = ["browser"]
WIDE, NARROW = 1440, 400
LOADING = {
    ("script", "src"),
    ("img", "src"),
    ("link", "href"),
    ("iframe", "src"),
    ("source", "srcset"),
    ("use", "href"),
}


def built(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--config-file",
        str(source),
        "--site-dir",
        str(target),
    ]
    unreachable = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    return subprocess.run(
        command, cwd=ROOT, env=plain_environment() | unreachable, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        done = built(ROOT / "mkdocs.yml", folder)
        assert done.returncode == 0, done.stderr

    return made_once(tmp_path_factory, "site", make)


class Loaded(HTMLParser):
    """The addresses that a page loads without being asked: not those of its links."""

    def __init__(self, page: str):
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if (tag, name) in LOADING]


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.glob("*.html"))
    assert {"index.html", "parameters.html", "benchmarks.html", "contributing.html"} <= {page.name for page in pages}
    for page in pages:
        addresses = Loaded(page.read_text("utf-8")).addresses
        assert len(addresses) > 3
        assert [address for address in addresses if re.match(r"(https?:)?//", address)] == []
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", sheet.read_text("utf-8")), sheet


@pytest.mark.parametrize("link", ["nowhere.md", "index.md#nowhere", "../src/doctogres/errors.py"])
def test_a_link_that_leads_nowhere_stops_it(tmp_path: Path, link: str) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("site", "images"):
        (tmp_path / "docs" / name).symlink_to(ROOT / "docs" / name)
    (tmp_path / "docs/index.md").write_text(f"# Page\n\n[a link]({link})\n", "utf-8")
    settings = (ROOT / "mkdocs.yml").read_text("utf-8").split("\nnav:")[0]
    settings = settings.replace("hooks: [docs", f"hooks: [{ROOT}/docs")
    (tmp_path / "mkdocs.yml").write_text(f"{settings}\nnav: [index.md, benchmarks.md, contributing.md, changelog.md]\n")
    done = built(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 1
    assert f"'{link.removeprefix('../')}'" in done.stderr.replace("'../", "'")


def test_make_says_how_to_look_at_it() -> None:
    steps = subprocess.run(
        ["make", "-n", "-o", ".venv/.done", "docs"],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "mkdocs build --quiet --strict" in steps
    assert f"file://{ROOT}/build/site/index.html" in steps


def test_the_figures_of_the_recipes_are_those_of_the_benchmarks() -> None:
    measured = (ROOT / "benchmarks/README.md").read_text("utf-8")
    figures = re.findall(r"-?\d\.\d+ \[[^]]+\]", (ROOT / "docs/recipes.md").read_text("utf-8"))
    assert len(figures) > 3
    assert [figure for figure in figures if figure not in measured] == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_every_page_fits_the_screen_and_the_search_works_from_a_disk(site: Path, browser: Browser, width: int) -> None:
    """Eight seconds for both widths."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in sorted(site.glob("*.html")):
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path.name
        assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).map(image => image.src)") == []
    page.goto((site / "index.html").as_uri())
    if width == NARROW:
        page.locator("label[for=__search]").first.click()
    page.locator("input.md-search__input").click()
    page.keyboard.type("answer log")
    page.locator(".md-search-result__item", has_text="Operations").first.wait_for()
    assert [url for url in asked if not url.startswith(("file:", "data:", "about:"))] == []
    page.close()
