"""`make release VERSION=1.2.0`: version, changelog, wheel, bill of materials, commit and tag; nothing leaves this machine.

The wheel is installed with the pinned packages into an environment of its own, which must answer with the new version, and
whose packages the bill of materials lists. If a step fails, the files that were changed are put back.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from pathlib import Path
from typing import Final

import click

from doctogres import __version__
from doctogres.errors import DoctogresError, ParameterError

from .command import OneLineCommand

ROOT: Final = Path(__file__).resolve().parents[1]
CODE: Final = Path("src/doctogres/__init__.py")
CHANGES: Final = Path("CHANGELOG.md")
CITATION: Final = Path("CITATION.cff")
PATHS: Final = (CODE, CHANGES, CITATION)  # what a release changes
UNRELEASED: Final = "## [Unreleased]\n"
VERSION: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)")
SBOM: Final = "cyclonedx-bom==7.5.0"


def checked_version(version: str, before: str) -> str:
    """A version, if it is one and later than the one before.

    Raises:
        ParameterError: it is not.
    """
    new, old = VERSION.fullmatch(version), VERSION.fullmatch(before)
    if not new or not old:
        raise ParameterError(f"VERSION={version}: not a version such as 1.2.0")
    if tuple(map(int, new.groups())) <= tuple(map(int, old.groups())):
        raise ParameterError(f"VERSION={version}: not later than {before}, the version of the code")
    return version


def released(changelog: str, version: str, day: date) -> str:
    """The changelog with what was unreleased under a version's heading.

    Raises:
        DoctogresError: nothing is unreleased.
    """
    before, found, after = changelog.partition(UNRELEASED)
    text = after.partition("\n## [")[0].strip()
    if not found or not text:
        raise DoctogresError(f"{CHANGES}: nothing stands under {UNRELEASED.strip()}: there is nothing to release")
    return f"{before}{UNRELEASED}\n## [{version}] - {day}\n{after}"


@contextmanager
def put_back(*paths: Path) -> Iterator[None]:
    """Restores files if the block fails."""
    with ExitStack() as restoring:
        for path in paths:
            restoring.callback(path.write_bytes, path.read_bytes())
        yield
        restoring.pop_all()


def run(*words: str | Path) -> str:
    """The output of a command in the project's folder.

    Raises:
        DoctogresError: it failed.
    """
    # Without the clone's modules, before which the installed ones would stand back.
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([*map(str, words)], cwd=ROOT, env=plain, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DoctogresError(f"{' '.join(map(str, words))} failed:\n{(done.stderr or done.stdout).strip()}")
    return done.stdout.strip()


def build(version: str) -> list[Path]:
    """Makes wheel, source archive and bill of materials in `dist/`, and tries the wheel.

    Raises:
        DoctogresError: a step failed, or the installed command is of another version.
    """
    uv, target, environment = Path(sys.executable).with_name("uv"), ROOT / "dist", ROOT / "build" / "release"
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)  # setuptools would pack files that are gone
    run(uv, "build", "--quiet", "--out-dir", target, ".")
    wheel, archive = target / f"doctogres-{version}-py3-none-any.whl", target / f"doctogres-{version}.tar.gz"
    run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, environment)
    python = environment / "bin" / "python"
    run(uv, "pip", "install", "--quiet", "--python", python, "-r", "requirements.txt", wheel)
    if (found := run(environment / "bin" / "doctogres", "--version")) != version:
        raise DoctogresError(f"{wheel.name}: the installed command is version {found}")
    bill = target / f"doctogres-{version}.cdx.json"
    run(uv, "tool", "run", "--from", SBOM, "cyclonedx-py", "environment", python, "-o", bill)
    return [wheel, archive, bill]


@click.command("release", cls=OneLineCommand)
@click.argument("version")
def command(version: str) -> None:
    """Makes a release from a clean working tree: files in dist/, a commit and a tag. Pushes nothing."""
    checked_version(version, __version__)
    if run("git", "status", "--porcelain"):
        raise DoctogresError("the working tree has changes: commit them first")
    if run("git", "tag", "--list", f"v{version}"):
        raise ParameterError(f"VERSION={version}: there is a tag v{version} already")
    code, changes, citation = [(ROOT / path).read_text(encoding="utf-8") for path in PATHS]
    texts = [
        code.replace(f'"{__version__}"', f'"{version}"'),
        released(changes, version, date.today()),
        citation.replace(f"\nversion: {__version__}\n", f"\nversion: {version}\n"),
    ]
    paths = [ROOT / path for path in PATHS]
    with put_back(*paths):
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        files = build(version)
        run(
            "git", "commit", "--quiet", "-m", f"Release {version}", "-m", "What is new stands in the changelog.", *PATHS
        )
    run("git", "tag", "-a", f"v{version}", "-m", f"doctogres {version}")
    print("\n".join(f"release: {path.relative_to(ROOT)}" for path in files))
    print(f"release: committed and tagged as v{version}. To publish it, type: git push --follow-tags")


if __name__ == "__main__":
    command()
