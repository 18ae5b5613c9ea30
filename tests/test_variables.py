"""docs/operations.md lists every environment variable that the code reads, and no other."""

import re

from tests.servers import ROOT

VARIABLE = re.compile(r"DOCTOGRES_[A-Z_]+")


def test_the_table_has_the_variables_that_the_code_reads() -> None:
    sources = [path for folder in ("src", "entrypoints") for path in (ROOT / folder).rglob("*.py")]
    read = {name for path in sources for name in VARIABLE.findall(path.read_text("utf-8"))}
    page = (ROOT / "docs/operations.md").read_text("utf-8")
    table = page.partition("## Environment variables\n")[2].partition("\n## ")[0]
    assert re.findall(rf"^\| `({VARIABLE.pattern})` \|", table, re.M) == sorted(read)
