"""What a stranger reads first agrees with the package: version, licence, and links that lead somewhere."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from doctogres import __version__

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


def test_the_citation_names_this_version_and_its_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert str(citation["version"]) == __version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert citation["license"] == project["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in (ROOT / "LICENSE").read_text("utf-8")


def test_the_newest_version_of_the_changelog_is_this_one() -> None:
    titles = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert [title for title in titles if title != "Unreleased"][0] == __version__


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text("utf-8"))
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_the_table_of_benchmarks_has_every_one() -> None:
    table = (ROOT / "benchmarks/README.md").read_text("utf-8").partition("\n## ")[0]
    programs = [path.stem for path in (ROOT / "benchmarks").glob("*.py") if "__main__" in path.read_text("utf-8")]
    assert sorted(set(re.findall(r"benchmarks\.(\w+)", table))) == sorted(programs)
