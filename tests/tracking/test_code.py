"""Which changes to the code a run records."""

import subprocess
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking import MlflowClient

from doctogres.tracking import runs
from doctogres.tracking.code import LARGEST, Changes, code_changes
from doctogres.tracking.runs import StageRun, run_stage


def git(root: Path, *arguments: str, given: bytes | None = None) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True, input=given)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A committed working tree of two files of code and a table of labels."""
    root = tmp_path / "tree"
    (root / "src").mkdir(parents=True)
    for name in ("src/a.py", "src/b.py", "labels.csv"):
        (root / name).write_text("first\n")
    git(root, "init", "-q")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def changed(root: Path) -> Changes | None:
    code_changes.cache_clear()
    return code_changes(root)


def test_the_diff_makes_the_code_again_and_has_nothing_of_the_labels(tree: Path) -> None:
    assert changed(tree) == Changes(b"")
    (tree / "labels.csv").write_text("a patient\n")
    (tree / "slides.csv").write_text("a patient\n")
    assert changed(tree) == Changes(b"")
    (tree / "src/a.py").write_text("second\n")
    (tree / "src/new.py").write_bytes(bytes(range(256)))
    (tree / "src/b.py").unlink()
    found = changed(tree)
    assert found is not None
    assert b"patient" not in found.diff
    git(tree, "stash", "-qu")
    assert changed(tree) == Changes(b"")
    git(tree, "apply", "-", given=found.diff)
    assert (tree / "src/a.py").read_text() == "second\n"
    assert (tree / "src/new.py").read_bytes() == bytes(range(256))
    assert not (tree / "src/b.py").exists()


def test_what_is_no_working_tree_of_its_own_is_unknown(tree: Path, tmp_path: Path) -> None:
    assert changed(tree / "src") is None
    assert changed(tmp_path) is None
    assert changed(tmp_path / "missing") is None


@pytest.mark.parametrize(
    ("changes", "tag", "kept"),
    [
        (None, None, False),
        (Changes(b""), "false", False),
        (Changes(b"+"), "true", True),
        (Changes(b"+" * LARGEST), "true", False),
    ],
)
def test_a_run_has_the_tag_and_a_small_diff(
    store: Path, monkeypatch: pytest.MonkeyPatch, changes: Changes | None, tag: str | None, kept: bool
) -> None:
    monkeypatch.setattr(runs, "code_changes", lambda: changes)

    def body(run: StageRun) -> None:
        pass

    result = run_stage("clean", body, settings={}, inputs={})
    assert mlflow.get_run(result.run_id).data.tags.get("git.dirty") == tag
    assert ("git.diff" in {file.path for file in MlflowClient().list_artifacts(result.run_id)}) == kept
