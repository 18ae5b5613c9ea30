"""Whether a commit message has the form that CONTRIBUTING.md asks for: `python -m tests.commit_message FILE`.

Git's commit-msg hook calls it by way of .pre-commit-config.yaml.
"""

import re
import sys
from pathlib import Path
from typing import Final

MAX_SUBJECT: Final = 72  # characters; longer ones are cut off in logs and lists
MADE_BY_GIT: Final = re.compile(r"(Merge |fixup! |squash! |amend! )")
TRAILER: Final = re.compile(r"[A-Za-z-]+-by: ")
SCISSORS: Final = re.compile(r"^# -+ >8 -+$", re.MULTILINE)


def problem_of(message: str) -> str:
    """What is wrong with a message and what to do about it; empty when nothing is.

    Args:
        message: as git hands it over, with its comments and, after `git commit --verbose`, the diff.
    """
    written = SCISSORS.split(message)[0]
    lines = [line for line in written.splitlines() if not line.startswith("#")]
    subject, *rest = "\n".join(lines).strip().splitlines() or [""]
    if MADE_BY_GIT.match(subject):
        return ""
    if not subject:
        return "the message is empty; say in a plain sentence what changes"
    if len(subject) > MAX_SUBJECT:
        return (
            f"the subject has {len(subject)} characters, at most {MAX_SUBJECT} are allowed; move the rest to the body"
        )
    if rest and rest[0].strip():
        return "the second line is not blank; leave it blank, so that git can tell the subject from the body"
    if not any(line.strip() and not TRAILER.match(line) for line in rest):
        return "there is no body; say after a blank line why the change is made"
    return ""


if __name__ == "__main__":
    if problem := problem_of(Path(sys.argv[1]).read_text(encoding="utf-8")):
        sys.exit(f"commit message: {problem} (CONTRIBUTING.md, Commits)")
