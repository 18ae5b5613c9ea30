"""Artifacts of slides with hostile names come back from a tracking server, each under a name of its own."""

import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from doctogres.names import artifact_name, class_key
from doctogres.tracking.places import fetch
from doctogres.tracking.runs import StageRun, run_stage
from tests.servers import free_port, running
from tests.stores import connected, new_store, plain_environment

pytestmark = pytest.mark.slow
NAMES = ("a#1", "a#2", "a?1", "50%", "50%25", "ü ö", "x;y", "[1]", "p+q", "a&b", "导管癌", "a:b", "..", "v1.2")


@pytest.fixture
def server(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [
        str(Path(sys.executable).parent / "mlflow"), "server", "--port", str(port), "--workers", "1",
        "--backend-store-uri", new_store(empty_store, tmp_path), "--artifacts-destination", str(tmp_path / "artifacts"),
    ]  # fmt: skip
    with running(command, f"{address}/health", tmp_path / "log", plain_environment(), seconds=120):
        (tmp_path / "work").mkdir()
        with connected(address, tmp_path / "work", monkeypatch):
            yield tmp_path / "artifacts"


def test_every_slide_keeps_its_file_and_every_class_its_metric(server: Path) -> None:
    def body(run: StageRun) -> None:
        for name in NAMES:
            run.attach(f"overlays/{artifact_name(name)}.png").write_text(name)
        run.publish("cohort").write_text("")
        run.log_metrics({f"f1/{class_key(name)}": index for index, name in enumerate(NAMES)})

    result = run_stage("clean", body, settings={}, inputs={})
    assert len(list(server.rglob("overlays/*.png"))) == len(NAMES)
    for index, name in enumerate(NAMES):
        assert fetch(f"runs:/{result.run_id}/overlays/{artifact_name(name)}.png").read_text() == name
        assert mlflow.get_run(result.run_id).data.metrics[f"f1/{class_key(name)}"] == index
