"""The tracking UI in a browser, as a person walks through a finished run: what can be read there."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from playwright.sync_api import Browser, Page

from doctogres.presets import load_preset
from doctogres.stages.candidate import candidate_of
from doctogres.stages.main import run_all
from doctogres.stages.register import register
from doctogres.stages.train import train
from doctogres.tracking.runs import StageResult
from doctogres.tracking.store import experiment_id
from doctogres.tracking.view import LOCAL_UI, TRAINING, compare_link, experiment_link, run_link
from tests.browsers import browser
from tests.servers import free_port, running

__all__ = ["browser"]
pytestmark = pytest.mark.slow
PRESET = load_preset(
    "demo", {"epochs": 3, "trials": 2, "trial_epochs": 2, "unfreeze_every": 1, "resamples": 200, "oof_folds": 2}
)
WIDE, NARROW = 1440, 1000
PATIENCE = 120_000  # ms


@pytest.fixture(scope="module")
def flow(module_store: Path, small_cohort: Path) -> StageResult:
    """A run of everything, whose model is champion by force."""
    result = run_all(data=str(small_cohort), preset=PRESET, seed=5)
    register(candidate_of(evaluation=child(result, "evaluate").info.run_id, preset=PRESET, seed=5, promote="force"))
    return result


@pytest.fixture(scope="module")
def ui(flow: StageResult, module_store: Path) -> Iterator[str]:
    """The address of MLflow's UI on the store of the flow."""
    address = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", os.environ["MLFLOW_TRACKING_URI"]]
    command += ["--port", address.rsplit(":", 1)[1], "--workers", "1"]
    with running(command, f"{address}/health", module_store / "ui.log", dict(os.environ), seconds=120):
        yield address


@pytest.fixture(params=[WIDE, NARROW])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page of a browser that has never seen MLflow."""
    context = browser.new_context(viewport={"width": request.param, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    yield opened
    context.close()


def child(flow: StageResult, stage: str) -> mlflow.entities.Run:
    query = f"tags.mlflow.parentRunId = '{flow.run_id}' and tags.`doctogres.stage` = '{stage}'"
    (run,) = MlflowClient().search_runs([experiment_id()], query)
    return run


def shown(value: float) -> str:
    """A metric as the UI writes it."""
    return str(value).removesuffix(".0")


def fits(page: Page) -> bool:
    """Whether nothing pushes the page wider than the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def test_the_experiment_opens_on_its_runs_with_their_scores(ui: str, flow: StageResult, page: Page) -> None:
    page.goto(experiment_link().replace(LOCAL_UI, ui))
    page.get_by_text("Histology slides (picture, lesion mask, label)").first.wait_for()
    name = mlflow.get_run(flow.run_id).info.run_name
    page.get_by_role("link", name=str(name)).wait_for()
    for column in ("macro_f1", "ci/macro_f1_low"):
        page.get_by_role("columnheader", name=column, exact=True).first.wait_for()
    page.get_by_role("gridcell", name=shown(flow.metrics["macro_f1"]), exact=True).first.wait_for()
    assert fits(page)


def test_the_parent_leads_to_the_evaluation_and_its_report(ui: str, flow: StageResult, page: Page) -> None:
    page.goto(run_link(flow.run_id).replace(LOCAL_UI, ui))
    page.get_by_text("Macro-F1 on the hold-out:").first.wait_for()
    assert page.locator("pre").count() == 0
    assert fits(page)
    page.get_by_text("Show more").first.click()
    link = run_link(child(flow, "evaluate").info.run_id, absolute=False)
    with page.context.expect_page() as opened:
        page.locator(f'a[href="{link}"]').first.click()
    page = opened.value
    page.get_by_text("the model reaches a macro-F1 of").first.wait_for()
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("report.html").first.click()
    report = page.frame_locator("iframe")
    report.get_by_role("heading", name="Example slides").wait_for()
    assert "hold-out slides" in report.locator("h1").inner_text()


def test_the_training_shows_a_family_of_curves_per_fold(ui: str, flow: StageResult, page: Page) -> None:
    # Not the flow's own training: the study may have chosen a probe, which has no curves.
    trained = train(patches=flow.artifacts["patch/patches"], params="none", preset=PRESET, seed=5)
    run = mlflow.get_run(trained.run_id)
    page.goto(run_link(run.info.run_id).replace(LOCAL_UI, ui))
    page.get_by_text("Out-of-fold macro-F1").first.wait_for()
    page.get_by_role("tab", name="Model metrics").click()
    for fold in ("fold0", "fold1"):
        page.get_by_text(fold, exact=True).first.wait_for()
    assert np.isfinite(run.data.metrics["fold1/val_loss"])
    assert fits(page)


def test_the_model_shows_its_score_on_the_hold_out(ui: str, flow: StageResult, page: Page) -> None:
    model = MlflowClient().get_logged_model(flow.artifacts["train/model"].removeprefix("models:/"))
    page.goto(f"{ui}/#/experiments/{experiment_id()}/models/{model.model_id}?{TRAINING}")
    page.get_by_role("heading", name=model.name).first.wait_for()
    page.get_by_placeholder("Search metrics").fill("macro_f1")
    row = page.get_by_role("row").filter(has=page.get_by_text("macro_f1", exact=True)).first
    row.wait_for()
    for part in ("slides (holdout)", str(child(flow, "evaluate").info.run_name), shown(flow.metrics["macro_f1"])):
        assert part in row.inner_text()
    assert fits(page)


def test_the_registered_version_is_champion_and_its_card_begins_with_the_score(
    ui: str, flow: StageResult, page: Page
) -> None:
    page.goto(f"{ui}/#/models/doctogres")
    page.get_by_text("Classifies histology slides").first.wait_for()
    page.get_by_text("@ champion").first.wait_for()
    page.get_by_role("link", name="Version 1").first.click()
    page.get_by_text(f"Macro-F1 {flow.metrics['macro_f1']:.3f} [").first.wait_for()
    page.get_by_role("heading", name="Known limits").wait_for()
    page.get_by_role("link", name=str(child(flow, "train").info.run_name)).first.wait_for()
    assert "**" not in page.locator("body").inner_text()
    assert fits(page)


def test_a_comparison_of_trials_opens_on_their_scores(ui: str, flow: StageResult, page: Page) -> None:
    query = f"tags.mlflow.parentRunId = '{child(flow, 'tune').info.run_id}'"
    trials = MlflowClient().search_runs([experiment_id()], query)
    page.goto(f"{ui}/{compare_link([run.info.run_id for run in trials])}")
    page.get_by_text(f"Comparing {len(trials)} Runs").first.wait_for()
    for run in trials:
        page.get_by_text(str(run.info.run_name), exact=True).first.wait_for()
    plotted = page.locator(".js-plotly-plot .axis-title")
    plotted.last.wait_for()
    assert plotted.last.text_content() == "macro_f1"
    assert fits(page)
