"""A whole `mlflow run` that is interrupted or killed in a trial: nothing stays open, and nothing goes on."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.servers import ROOT, heed_ctrl_c
from tests.stores import new_store, plain_environment

pytestmark = pytest.mark.slow
LAUNCH = "launch"


class Pipeline:
    """One `mlflow run` with everything that it writes in a folder, in a process group of its own as in a terminal."""

    def __init__(self, folder: Path, data: Path):
        self.folder, self.data = folder, data
        (folder / "tmp").mkdir()
        self.environment = plain_environment() | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "DOCTOGRES_WORKSPACE": str(folder / "workspace"),
            "TMPDIR": str(folder / "tmp"),
        }
        command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager", "local"]
        options = [f"data={data}", "trial_epochs=1000", "patience=1000", "trials=1"]
        self.process = subprocess.Popen(
            [*command, *(word for option in options for word in ("-P", option))], cwd=folder, env=self.environment,
            stdout=subprocess.DEVNULL, stderr=(folder / "errors.txt").open("w"), start_new_session=True,
            preexec_fn=heed_ctrl_c,
        )  # fmt: skip

    def run(self, stage: str) -> None:
        """Another command in the same place, to its end."""
        command = [sys.executable, "-m", f"entrypoints.{stage}", "--data", str(self.data)]
        subprocess.run(command, cwd=self.folder, env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def statuses(self) -> dict[str, str]:
        """The status of every run under its stage's or trial's name, or LAUNCH."""
        query = """
            SELECT CASE experiment_id WHEN 0 THEN ? ELSE coalesce(value, substr(name, instr(name, 'trial-'))) END, status
            FROM runs LEFT JOIN tags ON tags.run_uuid = runs.run_uuid AND key = 'doctogres.stage' ORDER BY start_time"""
        # mode=rw: after a kill within a transaction, reading rolls its journal back, which mode=ro may not
        with sqlite3.connect(f"file:{self.folder}/mlflow.db?mode=rw", uri=True, timeout=60) as store:
            return dict(store.execute(query, [LAUNCH]).fetchall())

    def wait_for_a_trial(self) -> None:
        while self.statuses().get("trial-000") != "RUNNING":
            assert self.process.poll() is None, self.errors()
            time.sleep(0.2)
        time.sleep(1)  # some epochs

    def wait_for_its_end(self) -> None:
        """Waits until no process of the group is left."""
        self.process.wait()
        for _ in range(600):
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.1)
        pytest.fail("the command went on")

    def errors(self) -> str:
        return (self.folder / "errors.txt").read_text()


@pytest.fixture
def pipeline(empty_store: Path, small_cohort: Path, tmp_path: Path) -> Pipeline:
    new_store(empty_store, tmp_path)
    found = Pipeline(tmp_path, small_cohort)
    found.wait_for_a_trial()
    return found


ENDED = {
    LAUNCH: "KILLED", "main": "KILLED", "clean": "FINISHED", "patch": "FINISHED", "tune": "KILLED", "trial-000": "KILLED",
}  # fmt: skip


def left_over(folder: Path) -> list[Path]:
    return [*folder.rglob("*.partial"), *(folder / "tmp").glob("doctogres-*")]


@pytest.mark.parametrize("how", ["Ctrl-C", "SIGTERM", "Ctrl-C twice"])
def test_an_interrupted_pipeline_ends_its_runs_and_says_how_to_continue(pipeline: Pipeline, how: str) -> None:
    if how == "SIGTERM":
        pipeline.process.terminate()  # of `mlflow run` alone: its command notices
    else:
        os.killpg(pipeline.process.pid, signal.SIGINT)
    if how == "Ctrl-C twice":
        time.sleep(0.05)
        os.killpg(pipeline.process.pid, signal.SIGINT)
    pipeline.wait_for_its_end()
    assert pipeline.statuses() == ENDED, pipeline.errors()
    message = next(line for line in pipeline.errors().splitlines() if line.startswith("main: error: interrupted"))
    assert "Kept: finished stages, finished trials" in message
    assert message.partition("To continue, type: ")[2].startswith("mlflow run ")
    assert f"-P data={pipeline.data}" in message
    assert left_over(pipeline.folder) == []


def test_the_next_command_clears_away_after_a_killed_pipeline(pipeline: Pipeline) -> None:
    os.killpg(pipeline.process.pid, signal.SIGKILL)
    pipeline.wait_for_its_end()
    assert "RUNNING" in pipeline.statuses().values()
    assert left_over(pipeline.folder) != []
    pipeline.run("clean")
    assert pipeline.statuses() == ENDED
    assert left_over(pipeline.folder) == []
