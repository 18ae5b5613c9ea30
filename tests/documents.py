"""The code blocks of the documents, and the commands in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.accepted import CHECKS
from tests.servers import ROOT

PAGES: Final = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))]
ASSIGNMENTS: Final = r"(?:[A-Z_]+=\S*\s+)*"
COMMAND: Final = re.compile(rf"{ASSIGNMENTS}({'|'.join(map(re.escape, sorted(CHECKS)))})(?=\s|$)")
INLINE: Final = re.compile(rf"`({ASSIGNMENTS}(?:make|mlflow|python|torchrun|doctogres|pip|docker|curl) [^`]+)`")
NOT_COMMANDS: Final = ("diff", "yaml")  # languages


@dataclass(frozen=True)
class Block:
    """A code block: its page, its line, its language ("" if it is indented or has none), and its text."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command with its continuation lines, and what the block shows below it."""

    block: Block
    text: str
    shown: str = ""


def blocks(page: Path) -> Iterator[Block]:
    """The code blocks of a page, in order: between fences, or indented by four spaces after a blank line."""
    name = page.relative_to(ROOT).as_posix()
    fenced = re.compile(r"```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
    indented = re.compile(r"(?<=\n\n)(?P<lines>(?:    .*\n|\n(?=(?:\n)*    ))+)")
    text = page.read_text("utf-8")
    found = [(match.start(), match["language"], match["code"]) for match in fenced.finditer(text)]
    plain = fenced.sub(lambda match: re.sub(r"[^\n]", "-", match[0]), text)
    found += [
        (match.start(), "", re.sub(r"^    ", "", match["lines"], flags=re.M).rstrip() + "\n")
        for match in indented.finditer(plain)
    ]
    for start, language, code in sorted(found):
        yield Block(name, text.count("\n", 0, start) + 1, language, code)


def commands(block: Block) -> list[Command]:
    """The commands of a block; lines that are neither commands nor comments are what the one before them shows."""
    if block.language in NOT_COMMANDS:
        return []
    if block.language == "python":
        return [Command(block, f"python - <<'PYTHON'\n{block.text}PYTHON\n")]
    found: list[Command] = []
    lines = block.text.splitlines()
    while lines:
        line = lines.pop(0)
        if COMMAND.match(line):
            while not _ends(line):
                line += "\n" + lines.pop(0)
            found.append(Command(block, line))
        elif line.strip() and not line.lstrip().startswith("#"):
            if not found:
                assert not any(map(COMMAND.match, [line, *lines])), f"{block.place}: commands below a line that is none"
                return []
            found[-1] = Command(block, found[-1].text, f"{found[-1].shown}\n{line}".strip())
    return found


def _ends(text: str) -> bool:
    """Whether a command needs no further line."""
    last = text.splitlines()[-1]
    if heredoc := re.search(r"<<'(\w+)'", text):
        return last == heredoc[1]
    if text.startswith("for "):
        return last.startswith("done")
    return not last.endswith(("\\", "|"))


def shown(block: Block) -> str:
    """The text of a block without commands."""
    return "" if block.language in (*NOT_COMMANDS, "python") or commands(block) else block.text


def inline(page: Path) -> list[str]:
    """The commands in running text, between backticks, that have options or are make's; others are only mentioned."""
    found = [" ".join(command.split()) for command in INLINE.findall(page.read_text("utf-8"))]
    return [re.sub(r"[][]", "", command) for command in found if " -" in command or command.startswith("make")]


def as_form(text: str) -> str:
    """A text whose numbers, sizes, ids, classes, paths and blanks are all alike."""
    text = re.sub(r"Luminal [AB]|HER2\(\+\)|Triple negative", "CLASS", text)
    text = re.sub(r"CLASS(, CLASS)+|\((not )?sure\)", "CLASS", text)
    text = re.sub(r"(?<![\w.])[\w./]*/[\w./-]*", "PATH", text)
    text = re.sub(r"-?\b(?=\w*\d)[0-9a-z]{6,}\b|[+-]?\d+(\.\d+)?( ?%| [kMG]B| bytes)?", "N", text)
    text = re.sub(r"\bN{2,}\b", "N", text)
    return re.sub(r"\s+", " ", text)


def pieces(text: str) -> list[str]:
    """What is always the same in a text: its lines, cut where it has dots."""
    return [piece.strip() for line in text.splitlines() for piece in as_form(line).split("...") if piece.strip()]
