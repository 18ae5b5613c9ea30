"""docs/troubleshooting.md quotes every message as it is said: by our code, or by the library named here."""

import re
import signal
import sqlite3
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import pytest

from tests.servers import ROOT
from tests.templates import says, templates

PAGE: Final = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
QUOTED: Final = re.findall(r"^#### `(.+)`$", PAGE, re.M)
FOREIGN: Final = {  # the beginning of a message -> the file of a package that has these words
    "Could not find Conda": ("mlflow", "utils/conda.py", "Could not find Conda executable at "),
    "Could not find NAME": ("mlflow", "projects/_project_spec.py", "Could not find {0} among entry points "),
    "Detected out-of-date": ("mlflow", "store/db/utils.py", "Detected out-of-date database schema (found version "),
    "Can't locate revision": ("alembic", "script/base.py", "Can't locate revision identified by '%s'"),
    "error while attempting": ("asyncio", "base_events.py", "error while attempting to bind on "),
    "You are not": ("mlflow", "server/auth/__init__.py", "You are not authenticated. Please see "),
    "Invalid Host": (
        "mlflow",
        "server/security_utils.py",
        "Invalid Host header - possible DNS rebinding attack detected",
    ),
    "Registered model alias": (
        "mlflow",
        "store/model_registry/sqlalchemy_store.py",
        "Registered model alias {alias} not found.",
    ),
    "Request processing": ("mlflow", "pyfunc/scoring_server/__init__.py", "Request processing time exceeded limit"),
}
ELSEWHERE: Final = ("Python 3.11 is", "Killed", "database is locked")  # each has its own test


def words(text: str) -> list[str]:
    """What is not a placeholder."""
    return [part.strip() for part in re.split(r"%s|{\w*}|\.\.\.|\b[A-Z][A-Z_]+\b", text) if part.strip(" ',()")]


def test_each_is_quoted_once_and_explained() -> None:
    assert 30 <= len(QUOTED) == len(set(QUOTED)) <= 60
    assert all(len(part.split()) > 5 for part in re.split(r"^####? .+$", PAGE, flags=re.M)[2:])


@pytest.mark.parametrize("quoted", [text for text in QUOTED if not text.startswith((*FOREIGN, *ELSEWHERE))])
def test_our_messages_are_said_by_the_code(quoted: str) -> None:
    assert sum(map(len, words(quoted))) > 15, "too few words to be looked for"
    assert [template for template in templates() if says(template, quoted)] != []


@pytest.mark.parametrize("begin", FOREIGN)
def test_messages_of_libraries_are_in_them(begin: str) -> None:
    package, name, text = FOREIGN[begin]
    (quoted,) = [quoted for quoted in QUOTED if quoted.startswith(begin)]
    spec = find_spec(package)
    assert spec
    assert spec.submodule_search_locations
    assert text in (Path(spec.submodule_search_locations[0]) / name).read_text("utf-8")
    assert all(part in quoted for part in words(text))


def test_make_says_which_python_it_needs() -> None:
    (quoted,) = [text for text in QUOTED if text.startswith("Python 3.11")]
    assert quoted.removesuffix("VERSION") in (ROOT / "Makefile").read_text("utf-8")


def test_a_shell_says_killed() -> None:
    assert signal.strsignal(signal.SIGKILL) in QUOTED


def test_sqlite_says_that_it_is_locked(tmp_path: Path) -> None:
    with (
        sqlite3.connect(tmp_path / "one.db", isolation_level=None) as first,
        pytest.raises(sqlite3.OperationalError) as error,
    ):
        first.execute("BEGIN EXCLUSIVE")
        sqlite3.connect(tmp_path / "one.db", timeout=0).execute("CREATE TABLE a (b)")
    assert str(error.value) in QUOTED


@pytest.mark.parametrize(
    "wrong", ["NAME does not exits: it was looked for at PATH", "PATH: it was looked for does not exist"]
)
def test_another_sentence_is_not_taken_for_a_quotation(wrong: str) -> None:
    assert not any(says(template, wrong) for template in templates())
