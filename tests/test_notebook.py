"""The notebook runs from its first cell to its last on a store with two versions."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from doctogres.presets import load_preset
from doctogres.stages.candidate import candidate_of
from doctogres.stages.main import run_all
from doctogres.stages.register import register
from tests.servers import ROOT

pytestmark = pytest.mark.slow
NOTEBOOK = ROOT / "notebooks" / "champion.ipynb"
QUICK = {"epochs": 1, "trials": 1, "trial_epochs": 1, "resamples": 200}


def outputs(notebook: nbformat.NotebookNode, cell: int) -> str:
    """What a cell printed or shows, as text."""
    return "".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in notebook.cells[cell].outputs
    )


def executed(slides: Path) -> Any:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert 'MODEL = "doctogres-demo"' in first.source
    first.source += f"\nSLIDES = {str(slides)!r}"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    return notebook


def test_it_answers_slides_and_compares_two_versions(
    module_store: Path, small_cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MPLBACKEND", raising=False)  # that of the tests shows no figures
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    for recipe in ("probe", "finetune"):
        preset = load_preset("demo", {**QUICK, "recipe": recipe})
        flow = run_all(data=str(small_cohort), preset=preset, seed=5)
        candidate = candidate_of(
            evaluation=flow.artifacts["evaluate/metrics"],
            model_name="doctogres-demo",
            promote="force",
            preset=preset,
            seed=5,
        )
        register(candidate)
    done = executed(small_cohort / "test_data")
    code = [number for number, cell in enumerate(done.cells) if cell.cell_type == "code"]
    answers, picture, versions, difference = (outputs(done, number) for number in code[2:])
    assert answers.count("img_") == 6
    assert "image/png" in done.cells[code[3]].outputs[0].data
    assert picture.startswith("<Figure")
    assert "version 2" in versions
    assert "version 2 minus version 1: " in difference
