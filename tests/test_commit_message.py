"""The form of commit messages, and the hooks that ask for it."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.commit_message import problem_of

ROOT = Path(__file__).parents[1]
GOOD = "The gate names the split that decides\n\nA reason without it could not be checked later.\n"


@pytest.mark.parametrize(
    "message",
    [
        GOOD,
        "x" * 72 + "\n\nwhy",
        f"{GOOD}\n# Please enter the commit message\n# {'-' * 24} >8 {'-' * 24}\ndiff --git a/x b/x\n{'y' * 200}\n",
        f"# a comment first\n\n{GOOD}\nCo-authored-by: A. Colleague <a@example.org>\n",
        "Merge branch 'gate' into main\n",
        "fixup! The gate names the split that decides\n",
    ],
)
def test_a_message_of_the_agreed_form_passes(message: str) -> None:
    assert problem_of(message) == ""


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("", "empty"),
        ("# only\n# comments\n", "empty"),
        ("x" * 73 + "\n\nwhy", "73 characters, at most 72"),
        ("The gate names the split\nbecause it could not be checked\n", "second line is not blank"),
        ("The gate names the split\n", "no body"),
        ("The gate names the split\n\n# a comment is no reason\n", "no body"),
        ("The gate names the split\n\nCo-authored-by: A. Colleague <a@example.org>\n", "no body"),
        (f"The gate names the split\n# {'-' * 24} >8 {'-' * 24}\n\ndiff --git a/x b/x\n", "no body"),
    ],
)
def test_every_other_message_is_refused_with_what_to_do(message: str, words: str) -> None:
    assert words in problem_of(message)


@pytest.mark.parametrize(("message", "status"), [(GOOD, 0), ("The gate names the split\n", 1)])
def test_the_hook_fails_with_one_line(message: str, status: int, tmp_path: Path) -> None:
    (tmp_path / "message").write_text(message, "utf-8")
    command = [sys.executable, "-m", "tests.commit_message", str(tmp_path / "message")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert len(done.stderr.splitlines()) == status


def test_the_hooks_need_nothing_but_what_make_setup_installs() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert local["repo"] == "local"
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    assert {hook["entry"].split()[0] for hook in local["hooks"]} <= {
        f".venv/bin/{name}" for name in ("python", "ruff", "mypy")
    }
