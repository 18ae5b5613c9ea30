"""Requests that come at the same time: how many MLflow's server gives to the model, and for how long."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT as TIME_LIMIT

REQUESTS: Final = 32  # with the model at once, in each worker; what they hold in memory is limited by its scheduler
server_log: Final = logging.getLogger("uvicorn.error")


class SurroundingServer(logging.Filter):
    """MLflow's server, if it has loaded the model; `time_limit` are the seconds after which it gives a request up.

    Requests come to the model in threads of the server's event loop: by default four more than cores, in the order of arrival,
    so that a few large ones would keep all others away from the model, which knows whose turn it is. The server has no setting
    for them, and with one worker it loads the model before there is a loop: the first line that it logs is written in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.time_limit: float | None = None
        if TIME_LIMIT.is_set():  # type: ignore[no-untyped-call]  # `mlflow models serve` sets it for its workers
            server_log.addFilter(self)
            self._prepare()

    def filter(self, record: logging.LogRecord) -> bool:
        self._prepare()
        return True

    def _prepare(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        loop.set_default_executor(ThreadPoolExecutor(REQUESTS, thread_name_prefix="request"))
        self.time_limit = float(TIME_LIMIT.get())  # type: ignore[no-untyped-call]
        server_log.removeFilter(self)
