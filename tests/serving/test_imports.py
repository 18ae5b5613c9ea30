"""What the served model may import: its environment has less than the project's."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from doctogres.serving.logged import REQUIREMENTS, WHERE_INSTALLED
from tests.servers import ROOT

# They are there, but only a server that gives metrics needs the first, and one whose model has no graph the others.
OPTIONAL = ["prometheus_client", "timm", "torch", "torchvision"]


def with_dependencies(names: tuple[str, ...]) -> set[str]:
    """The packages and all that they need."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = canonicalize_name(left.pop())
        if name in found:
            continue
        found.add(name)
        try:
            needed = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:  # of another system
            continue
        left += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def test_the_served_models_code_needs_no_library_that_its_environment_lacks() -> None:
    there = with_dependencies(REQUIREMENTS)
    missing = [
        module
        for module, packages in packages_distributions().items()
        if there.isdisjoint(map(canonicalize_name, packages))
    ]
    assert {"optuna", "pdqhash", "streamlit"} <= set(missing)
    probe = f"import sys; sys.modules.update(dict.fromkeys({[*missing, *OPTIONAL]})); import doctogres.serving.pyfunc"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT / "src", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_container_has_the_same_environment() -> None:
    lines = (ROOT / "container" / "requirements.txt").read_text(encoding="utf-8").split()
    scanner_files = [line for line in lines if line.startswith("openslide-")]
    assert lines == [*REQUIREMENTS, *scanner_files]
    assert {line.split("==")[0] for line in scanner_files} == set(WHERE_INSTALLED)
    assert set(scanner_files) <= set((ROOT / "requirements-dev.txt").read_text(encoding="utf-8").split())
