"""The choice of `make quick`: changed files and the tests that they concern."""

import math
import os
import subprocess
from pathlib import Path

import pytest

from tests.quick import Stopwatch, affected, changed_files

FILES = {
    "src/doctogres/errors.py": "",
    "src/doctogres/slides/__init__.py": "",
    "src/doctogres/slides/masks.py": "",
    "src/doctogres/presets/demo.yaml": "",
    "entrypoints/clean.py": "",
    "README.md": "",
    "tests/drawn.py": "",
    "tests/slides/conftest.py": "",
    "tests/slides/test_masks.py": "",
    "tests/slides/test_fuzz.py": "def test():\n    from doctogres.slides import masks\n",
    "tests/model/test_masks.py": "",
    "tests/model/test_tiles.py": "from doctogres.slides.masks import read_mask\nfrom doctogres.presets import load\n",
    "tests/test_page.py": "import tests.drawn\nimport entrypoints.clean\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("src/doctogres/slides/masks.py", ["slides/test_masks.py", "slides/test_fuzz.py", "model/test_tiles.py"]),
        ("src/doctogres/presets/demo.yaml", ["model/test_tiles.py"]),
        ("src/doctogres/slides/__init__.py", ["slides/test_fuzz.py"]),
        ("src/doctogres/errors.py", []),
        ("entrypoints/clean.py", ["test_page.py"]),
        ("tests/drawn.py", ["test_page.py"]),
        ("tests/model/test_tiles.py", ["model/test_tiles.py"]),
        ("tests/slides/conftest.py", ["slides/test_fuzz.py", "slides/test_masks.py"]),
        ("README.md", []),
    ],
)
def test_a_file_concerns_its_mirror_and_what_imports_it(project: Path, changed: str, expected: list[str]) -> None:
    assert affected([changed], project) == [f"tests/{name}" for name in expected]


def test_what_is_nearest_comes_first(project: Path) -> None:
    both = affected(["src/doctogres/slides/masks.py", "tests/model/test_tiles.py"], project)
    assert both == ["tests/model/test_tiles.py", "tests/slides/test_masks.py", "tests/slides/test_fuzz.py"]


def test_everything_since_main_has_changed_whether_committed_or_not(project: Path) -> None:
    def git(*arguments: str) -> None:
        person = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", str(project), *person, *arguments], check=True, capture_output=True)

    git("init", "--initial-branch", "main")
    (project / ".gitignore").write_text("*.pyc\n")
    git("add", ".")
    git("commit", "--message", "first")
    assert changed_files(project) == []
    git("checkout", "-b", "topic")
    (project / "entrypoints/clean.py").write_text("1")
    git("commit", "--all", "--message", "second")
    (project / "README.md").write_text("1")
    (project / "tests/test_new.py").write_text("")
    (project / "tests/test_new.pyc").write_text("")
    (project / "tests/drawn.py").unlink()
    assert changed_files(project) == ["README.md", "entrypoints/clean.py", "tests/test_new.py"]


@pytest.mark.parametrize(
    ("end", "done", "failed", "status"),
    [
        (0.0, 1, False, pytest.ExitCode.INTERRUPTED),
        (math.inf, 2, True, pytest.ExitCode.TESTS_FAILED),
    ],
)
def test_what_is_left_when_the_time_is_over_is_not_run(
    tmp_path: Path, end: float, done: int, failed: bool, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    (tmp_path / "test_two.py").write_text("def test_one(): pass\n\n\ndef test_two(): assert False\n")
    stopwatch = Stopwatch(end)
    options = [
        "-p",
        "no:cacheprovider",
        "-p",
        "no:terminal",
        "-p",
        "no:unraisableexception",
        "--import-mode",
        "importlib",
        "-c",
        os.devnull,
        "--rootdir",
        str(tmp_path),
    ]
    assert pytest.main([*options, str(tmp_path)], plugins=[stopwatch]) == status
    assert (stopwatch.done, stopwatch.collected, stopwatch.failed) == (done, 2, failed)
    assert stopwatch.over == (done < 2)
