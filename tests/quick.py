"""The fast tests of what changed since main: `python -m tests.quick`, after the lint of `make quick`.

The tests of a changed module are those that mirror it and those that import it, which can be nearly all there are: the
nearest are run first, for as long as half a minute lasts. `make test` runs every one.
"""

import ast
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
SECONDS: Final = 22.0


def changed_files(root: Path = ROOT) -> list[str]:
    """Paths relative to the root that differ from where this branch left main, those not committed among them."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False).stdout

    main = next((name for name in ("origin/main", "main") if git("rev-parse", "--verify", "--quiet", name)), "HEAD")
    base = git("merge-base", "HEAD", main).strip() or "HEAD"
    known = git("diff", "--name-only", "--diff-filter=d", "--relative", base)
    new = git("ls-files", "--others", "--exclude-standard")
    return sorted({*known.splitlines(), *new.splitlines()})


def affected(changed: Iterable[str], root: Path = ROOT) -> list[str]:
    """The test files that the changed ones concern, the nearest first.

    Nearest are changed tests and mirrors (`src/doctogres/a/b.py`: `tests/a/test_b.py`), then what imports a changed
    module from the folder that mirrors its own, then what imports it from elsewhere.
    """
    tests = sorted(str(path.relative_to(root)) for path in root.glob("tests/**/test_*.py"))
    imports = {test: set(_imports(root / test)) for test in tests}
    distance: dict[str, int] = {}
    for path in map(Path, changed):
        module, folder = _module(path), _mirror(path)
        for test in tests:
            inside = Path(test).is_relative_to(folder)
            if str(path) == test or (inside and Path(test).name == f"test_{path.stem}.py"):
                near = 0
            elif module in imports[test] or (path.name == "conftest.py" and inside):
                near = 1 if inside else 2
            else:
                continue
            distance[test] = min(near, distance.get(test, near))
    return sorted(distance, key=lambda test: (distance[test], test))


def _module(path: Path) -> str:
    """What the file is called in an import; of what is no Python, its package."""
    parts = path.parts[1:] if path.parts[0] == "src" else path.parts
    named = parts[:-1] if path.suffix != ".py" or path.name == "__init__.py" else (*parts[:-1], path.stem)
    return ".".join(named)


def _mirror(path: Path) -> Path:
    """The folder of the tests of the file."""
    parts = path.parent.parts
    if parts[:2] == ("src", "doctogres"):
        return Path("tests", *parts[2:])
    return path.parent if parts[:1] == ("tests",) else Path("tests", *parts)


def _imports(test: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(test.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


class Stopwatch:
    """Ends pytest's session when the time is over, and knows whether a test had failed until then."""

    def __init__(self, end: float):
        self.end, self.collected, self.done, self.failed, self.over = end, 0, 0, False, False

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.session, self.collected = session, len(session.items)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed |= report.failed
        if report.when == "teardown":
            self.done += 1
            if time.monotonic() > self.end and self.done < self.collected:
                self.over = True
                self.session.shouldstop = f"the time is over after {self.done} of {self.collected} tests"


def main() -> int:
    """Runs the tests, file by file: what the next one imports takes seconds, too. Returns 1 if a test failed."""
    end = time.monotonic() + SECONDS
    found, failed = affected(changed_files()), False
    for number, test in enumerate(found):
        if time.monotonic() > end:
            print(f"{len(found) - number} more test files import what changed; `make test` runs them, too")
            break
        stopwatch = Stopwatch(end)
        status = pytest.main(["-q", "-m", "not slow", test], plugins=[stopwatch])
        fine = status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) or stopwatch.over
        failed |= stopwatch.failed or not fine
    if not found:
        print("nothing changed that a test file mirrors or imports")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
