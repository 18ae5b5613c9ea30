"""How long a refusal, a fully reused run and the start of a server take, as ratios to `python -c "import mlflow"`.

    make demo && python -m benchmarks.startup [REPEATS]

Every command is a process of its own, in the project's folder, with the store that `make demo` filled, and they are measured
in turns; what `mlflow run` itself adds is in none of them but the last. The server is that of `make serve MODEL=doctogres-demo`.
"""

import http.client
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
REFERENCE: Final = "import mlflow"
COMMANDS: Final = {
    REFERENCE: ["-c", "import mlflow"],
    "refusal: a path that is not there": ["-m", "entrypoints.main", "--data", "nowhere"],
    "refusal: a value out of range": ["-m", "entrypoints.main", "--epochs", "0"],
    "one stage, reused": ["-m", "entrypoints.patch"],
    "all stages, reused": ["-m", "entrypoints.main"],
    "all stages, reused, by `mlflow run`": ["-m", "mlflow", "run", ".", "--env-manager", "local"],
}


SERVE: Final = [
    "-m",
    "mlflow",
    "models",
    "serve",
    "--model-uri",
    "models:/doctogres-demo@champion",
    "--env-manager",
    "local",
]
SERVER: Final = "a server's first answer to `GET /ping`"


def environment() -> dict[str, str]:
    """That of the Makefile."""
    return {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"sqlite:///{ROOT}/mlflow.db",
        "MLFLOW_EXPERIMENT_NAME": "doctogres",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }


def seconds_of(arguments: list[str]) -> float:
    """Wall time of one process; it must end as its name says."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment(), capture_output=True, text=True)
    took = time.perf_counter() - started
    if (done.returncode != 0) != any(word in arguments for word in ("nowhere", "--epochs")):
        raise SystemExit(f"{' '.join(arguments)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return took


def seconds_to_serve() -> float:
    """From the start of a server until it answers 200."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started, nothing = time.perf_counter(), subprocess.DEVNULL
    command = [sys.executable, *SERVE, "--port", str(port)]
    server = subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=nothing, stderr=nothing, start_new_session=True
    )
    try:
        while not answers(port):
            if server.poll() is not None or time.perf_counter() - started > 300:
                raise SystemExit(f"{' '.join(command)}: no server; is there a champion of `make demo`?")
            time.sleep(0.05)
        return time.perf_counter() - started
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def answers(port: int) -> bool:
    """Whether a server has loaded its model."""
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except OSError:
        return False


def main(repeats: int) -> None:
    """Measures every command in turns and prints the table."""
    measured: dict[str, Callable[[], float]] = {name: partial(seconds_of, words) for name, words in COMMANDS.items()}
    measured[SERVER] = seconds_to_serve
    for measure in measured.values():
        measure()  # fills the file cache
    took = {name: [] for name in measured}  # type: dict[str, list[float]]
    for _ in range(repeats):
        for name, measure in measured.items():
            took[name].append(measure())
    reference = statistics.median(took[REFERENCE])
    print(f"| command | median of {repeats}, s | times `{REFERENCE}` |\n|---|---|---|")
    for name, values in took.items():
        print(f"| {name} | {statistics.median(values):.1f} | {statistics.median(values) / reference:.1f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
