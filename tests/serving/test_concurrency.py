"""The model in MLflow's server: how many requests come to it at once."""

import asyncio
import logging
import threading

import pytest

from doctogres.serving.concurrency import REQUESTS, SurroundingServer


@pytest.fixture
def server_log(caplog: pytest.LogCaptureFixture) -> logging.Logger:
    caplog.set_level(logging.INFO, "uvicorn.error")
    return logging.getLogger("uvicorn.error")


@pytest.mark.parametrize("loaded_in_loop", [True, False])
def test_many_requests_come_to_the_model_at_once(
    loaded_in_loop: bool, server_log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "90")
    before = None if loaded_in_loop else SurroundingServer()
    together = threading.Barrier(REQUESTS)

    async def serve() -> float | None:
        server = before or SurroundingServer()  # several workers of uvicorn load the model in their loop
        server_log.info("Started server process")
        await asyncio.gather(*[asyncio.to_thread(together.wait, 20) for _ in range(REQUESTS)])
        return server.time_limit

    assert asyncio.run(serve()) == 90
    assert server_log.filters == []


def test_outside_a_server_nothing_changes(server_log: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", raising=False)
    assert SurroundingServer().time_limit is None
    assert server_log.filters == []
