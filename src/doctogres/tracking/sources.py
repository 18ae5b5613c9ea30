"""A digest of the code behind a stage, so that results of edited code are not reused."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from doctogres.files import digest, digest_of

PACKAGE: Final = Path(__file__).resolve().parent.parent
TEMPLATES: Final = (".html", ".css", ".js", ".jinja")


@cache
def code_digest(module: str) -> str:
    """The digest of a doctogres module and all doctogres modules it imports, directly or not, including inside functions.

    Comments, docstrings and formatting do not count; templates and style sheets that a module names do.

    Args:
        module: the module's name, such as `doctogres.stages.clean`.
    """
    return digest_of([(str(path.relative_to(PACKAGE)), _read(path).content) for path in sorted(_reached(module))])


def _reached(module: str) -> set[Path]:
    """The source files that the module can reach, and the templates and style sheets that they name."""
    reached: set[Path] = set()
    waiting = [_source(module)]
    while waiting:
        path = waiting.pop()
        if path is not None and path not in reached:
            reached.add(path)
            waiting.extend(map(_source, _read(path).imports))
            waiting.extend(other for other in _templates(path.parent) if other.name in path.read_text("utf-8"))
    return reached


@cache
def _templates(folder: Path) -> tuple[Path, ...]:
    return tuple(path for path in folder.rglob("*") if path.suffix in TEMPLATES) if folder != PACKAGE else ()


def _source(module: str) -> Path | None:
    """The file of a doctogres module; None for a name inside a module or for a third-party module."""
    package, *parts = module.split(".")
    path = PACKAGE.joinpath(*parts)
    candidates = (path.with_suffix(".py"), path / "__init__.py") if package == PACKAGE.name and parts else ()
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


@dataclass(frozen=True)
class _File:
    """What counts of a source file.

    Attributes:
        imports: modules, their packages, and names that may be modules.
        content: a digest; for Python, of the syntax tree without docstrings.
    """

    imports: tuple[str, ...]
    content: str


@cache  # but not the syntax trees, which take 20 MiB
def _read(path: Path) -> _File:
    if path.suffix != ".py":
        return _File((), digest(path.read_bytes()))
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return _File(tuple(_imported(tree)), digest(ast.dump(tree)))
