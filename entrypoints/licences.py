"""`python -m entrypoints.licences`: the licence of every pinned package, as its own metadata states it, as CSV."""

import csv
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

import click

ROOT: Final = Path(__file__).resolve().parents[1]
RUNTIME: Final = ("requirements.txt", "requirements-app.txt")
PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)==", re.MULTILINE)
COPYLEFT: Final = re.compile(r"\bA?GPL|\bGNU (Affero )?General Public", re.IGNORECASE)  # not the LGPL, which asks less
READ: Final = {  # packages whose metadata says nothing: what a person read in their files
    "cuda-toolkit": "NVIDIA Proprietary Software",  # holds no file, only names the others of NVIDIA's
    "huey": "MIT",
    "skops": "MIT",
}
ABSENT: Final = "not installed on this platform"


@dataclass(frozen=True)
class Licence:
    """What a package's metadata says; the text is empty where it says nothing."""

    package: str
    version: str
    text: str

    @property
    def problem(self) -> str:
        """What a person must look at before a release; empty if nothing."""
        if not self.text:
            return "states no licence"
        return "GPL" if COPYLEFT.search(self.text) and " OR " not in self.text else ""


def licences(names: list[str]) -> Iterator[Licence]:
    """The licences of these packages, in their order."""
    for name in names:
        try:
            found = distribution(name)
        except PackageNotFoundError:
            yield Licence(name, "", ABSENT)
        else:
            yield Licence(name, found.version, licence_of(found))


def licence_of(found: Distribution) -> str:
    """A package's licence expression, or what older metadata has instead; empty where it has nothing."""
    about: Any = found.metadata  # an email.message.Message, of which the annotation tells less
    if expression := about.get("License-Expression"):
        return str(expression)
    classified = [row.rpartition(" :: ")[2] for row in about.get_all("Classifier", []) if row.startswith("License :: ")]
    if named := [row for row in classified if row != "OSI Approved"]:
        return "; ".join(named)
    return str(about.get("License") or "").partition("\n")[0].strip() or READ.get(found.name, "")


def pinned(files: tuple[str, ...] = RUNTIME) -> list[str]:
    """The names of the packages that users of doctogres install."""
    return [name for file in files for name in PIN.findall((ROOT / file).read_text(encoding="utf-8"))]


@click.command("licences")
def command() -> None:
    """Prints package, version, licence and problem of every pinned package; fails if there is a problem."""
    rows = list(licences(pinned()))
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["package", "version", "licence", "problem"])
    table.writerows((row.package, row.version, row.text, row.problem) for row in rows)
    sys.exit(any(row.problem for row in rows))


if __name__ == "__main__":
    command()
