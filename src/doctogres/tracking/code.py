"""Changes to the code since its last commit, which the commit of a run does not contain."""

import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import doctogres

DIRTY_TAG: Final = "git.dirty"
DIFF_FILE: Final = "git.diff"
LARGEST: Final = 1_000_000  # bytes of a diff that is kept
# What decides a result. Slides and tables of labels that lie beside the code are none of this.
CODE: Final = ("src", "entrypoints", "MLproject", "conda.yaml", "pyproject.toml", "requirements*.txt")
SECONDS: Final = 20


@dataclass(frozen=True)
class Changes:
    """The difference to the last commit, as `git apply` takes it; new files included. Empty without changes."""

    diff: bytes

    @property
    def kept(self) -> bool:
        """Whether there is a diff, and it is small enough to be stored with a run."""
        return 0 < len(self.diff) < LARGEST


@cache  # of the code that this process has loaded, not of what is edited while it runs
def code_changes(root: Path = Path(doctogres.__file__).parents[2]) -> Changes | None:
    """The changes in a working tree, by default the one that this code runs from; None if it is not one of git."""
    try:
        if Path(_git(root, "rev-parse", "--show-toplevel").decode().strip()).resolve() != root.resolve():
            return None  # an installed copy that happens to lie inside another repository
        diff = _git(root, "diff", "--binary", "HEAD", "--", *CODE)
        new = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *CODE).decode(
            errors="surrogateescape"
        )
        for file in filter(None, new.split("\0")):
            diff += _git(root, "diff", "--binary", "--no-index", "--", "/dev/null", file, differs=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return Changes(diff)


def _git(root: Path, *arguments: str, differs: bool = False) -> bytes:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
    if done.returncode not in ((0, 1) if differs else (0,)):
        raise subprocess.SubprocessError(done.stderr)
    return done.stdout
