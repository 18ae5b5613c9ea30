"""Pages of the site that lie outside of `docs/`, and the links to and from them; mkdocs.yml names this file."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[2]
OUTSIDE: Final = {
    "benchmarks.md": "benchmarks/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
PAGES: Final = {source: page for page, source in OUTSIDE.items()}
LINK: Final = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages from outside."""
    for page, source in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links within the repository, which a reader of the files follows, into links within the site."""
    folder = dirname(OUTSIDE.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def within_site(link: re.Match[str]) -> str:
        target = normpath(join(folder, link[1]))
        return PAGES.get(target, target.removeprefix("docs/"))

    return LINK.sub(within_site, markdown)
