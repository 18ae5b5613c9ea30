"""An edited rule makes another digest for the stages that follow it, and for no others."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from doctogres.tracking.sources import PACKAGE

STAGES = ("clean", "patch", "train", "evaluate", "register")


def digests(source: Path) -> dict[str, str]:
    """The digest of every stage and of a network's training, by the code that lies in `source`."""
    modules = [*(f"doctogres.stages.{stage}" for stage in STAGES), "doctogres.training.loop"]
    code = f"from doctogres.tracking.sources import code_digest; print(*map(code_digest, {modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(source)}, capture_output=True, text=True, check=True
    )
    return dict(zip((*STAGES, "network"), done.stdout.split(), strict=True))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code that a test may edit; it puts back what it edited."""
    folder = tmp_path_factory.mktemp("source")
    shutil.copytree(PACKAGE, folder / "doctogres", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def plain(source: Path) -> dict[str, str]:
    return digests(source)


@pytest.mark.parametrize(
    ("file", "before", "after", "changed"),
    [
        (
            "cleaning/slime.py",
            "GREEN_HUE: Final = (35,",
            "GREEN_HUE: Final = (36,",
            {"clean", "patch", "evaluate", "register"},
        ),
        ("report/templates/report.css", "{", "{ color: red;", {"evaluate", "register"}),
        ("report/templates/gallery.html", "truth <strong>", "true <strong>", {"evaluate", "register"}),
        ("cleaning/templates/audit.js", '"use strict";', "", {"clean"}),
        ("training/optimizer.py", "0.01 + 0.99", "0.02 + 0.98", {"train", "network"}),
        ("registry/gate.py", ">= -settings.loss_margin", "> -settings.loss_margin", {"register"}),
        ("cleaning/slime.py", '"""', '"""Reworded. ', set()),
        ("cleaning/slime.py", "\n\n\ndef", "\n\n\n# a comment\ndef", set()),
    ],
)
def test_an_edit_counts_for_what_it_can_change(
    source: Path, plain: dict[str, str], file: str, before: str, after: str, changed: set[str]
) -> None:
    path = source / "doctogres" / file
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after, 1), encoding="utf-8")
    try:
        edited = digests(source)
    finally:
        path.write_text(text, encoding="utf-8")
    found = {name for name in plain if plain[name] != edited[name]}
    assert changed <= found
    assert not ({"network", "clean", "patch"} - changed) & found
