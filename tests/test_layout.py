"""Imports run downwards only, as the table in CONTRIBUTING.md says."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "doctogres"
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def rows() -> dict[str, int]:
    """Part of the package -> its row in the table, counted from the top."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("| part |")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    return {name: row for row, cell in enumerate(cells) for name in re.findall(r"`([a-z]+)/?`", cell)}


def _part(module: Path) -> str:
    return module.parts[0].removesuffix(".py")


def imported_parts(module: Path) -> Iterator[str]:
    """The parts of the package that a module imports from, at its top or inside a function."""
    for node in ast.walk(ast.parse((PACKAGE / module).read_text("utf-8"))):
        names = [name.name for name in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names]
        for package, part, *_ in (f"{name}.".split(".") for name in names):
            if package == "doctogres" and part not in ("", "__version__"):
                yield part


def test_a_module_imports_only_from_rows_above_its_own() -> None:
    row = rows()
    upward = {
        f"{module} imports {part}"
        for module in MODULES
        for part in imported_parts(module)
        if part != (own := _part(module)) and row[part] >= row[own]
    }
    assert not upward


def test_the_table_lists_what_is_there() -> None:
    assert set(rows()) == set(map(_part, MODULES))


def test_no_two_test_files_have_the_same_name() -> None:
    """Python would import one for the other, as the folders are no packages."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))
