"""docs/extending.md: every diff applies to the project as it is, and every example does what the page says."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stores import plain_environment

ROOT = Path(__file__).parents[1]
COPIED = ("src", "tests", "entrypoints", "benchmarks", "docs", "pyproject.toml")
SECTIONS = dict(
    re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", (ROOT / "docs/extending.md").read_text("utf-8"), re.M | re.S)
)


def blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", SECTIONS[section], re.MULTILINE | re.DOTALL)


def run(*command: str, folder: Path, given: str | None = None) -> None:
    """Runs a command in a folder that counts as no part of a repository around it; fails with what it printed."""
    variables = {name: value for name, value in plain_environment().items() if not name.startswith(("PYTEST_", "GIT_"))}
    variables |= {"GIT_CEILING_DIRECTORIES": os.fspath(folder.parent), "PYTHONPATH": "src"}
    done = subprocess.run(command, cwd=folder, env=variables, input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_has_an_example_of_each() -> None:
    assert list(SECTIONS) == [
        "A backbone",
        "An aggregation",
        "A cleaning rule",
        "A picture format",
        "A rule of the gate",
    ]


@pytest.mark.parametrize("section", SECTIONS)
def test_the_diff_applies(section: str) -> None:
    (diff,) = blocks(section, "diff")
    run("git", "apply", "--check", "-", folder=ROOT, given=diff)


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
def test_the_example_works(section: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in COPIED:
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy / name)
    (diff,) = blocks(section, "diff")
    run("git", "apply", "-", folder=copy, given=diff)
    for code in blocks(section, "python"):
        if path := re.match(r"# (tests/\S+\.py)\n", code):
            (copy / path[1]).write_text(code, "utf-8")
        else:
            run(sys.executable, "-c", code, folder=copy)
    run(sys.executable, "-m", "ruff", "check", "--no-cache", ".", folder=copy)
    run(sys.executable, "-m", "ruff", "format", "--no-cache", "--check", ".", folder=copy)
    (command,) = re.findall(r"^    python (-m pytest .+)$", SECTIONS[section], re.MULTILINE)
    run(sys.executable, *shlex.split(command), "-q", "-p", "no:cacheprovider", folder=copy)
