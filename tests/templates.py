"""The sentences that the code can say, with a gap in place of each value."""

import ast
import re
from functools import cache
from typing import Final

from tests.servers import ROOT

GAP: Final = "\0"


@cache
def templates() -> frozenset[str]:
    """Every text in the library and the entry points; `{name}` and values of f-strings are gaps, blanks are single."""
    found = set()
    for part in ("src", "entrypoints"):
        for path in (ROOT / part).rglob("*.py"):
            nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
            unsaid = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}  # docstrings
            for node in nodes:
                if id(node) in unsaid or not isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp):
                    continue
                if text := _text(node):
                    found.add(re.sub(r"\s+", " ", re.sub(r"{\w*}", GAP, text)))
    return frozenset(found)


def _text(node: ast.expr) -> str:
    """The text of a string, of an f-string, or of a sum of them; what is neither is a gap."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else GAP for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return f"{_text(node.left) or GAP}{_text(node.right) or GAP}"
    return ""


def says(template: str, quoted: str) -> bool:
    """Whether a quoted sentence is a template's, or its beginning or end: its placeholders (CAPITALS, ..., names of files) are the gaps."""
    parts = [part.strip() for part in re.split(rf"{GAP}|\.\.\.|\b[A-Z][A-Z_]+\b|\b\w+\.csv\b", quoted)]
    place = 0
    for part in filter(None, parts):
        if (found := template.find(part, place)) < 0:
            return False
        place = found + len(part)
    return True


def spoken_by(quoted: str) -> list[str]:
    """The templates that say a quoted sentence."""
    return [template for template in templates() if says(template, " ".join(quoted.split()))]
