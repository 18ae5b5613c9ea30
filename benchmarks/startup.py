"""How long a refusal and a fully reused run take, as ratios to `python -c "import mlflow"` measured in turns beside them.

    make demo && python -m benchmarks.startup [REPEATS]

Every command is a process of its own, in the project's folder, with the store that `make demo` filled; what `mlflow run`
itself adds is in none of them but the last.
"""

import os
import statistics
import subprocess
import sys
import time
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


def seconds_of(arguments: list[str]) -> float:
    """Wall time of one process; it must end as its name says."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{ROOT}/mlflow.db"}
    environment |= {
        "MLFLOW_EXPERIMENT_NAME": "doctogres",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    took = time.perf_counter() - started
    if (done.returncode != 0) != any(word in arguments for word in ("nowhere", "--epochs")):
        raise SystemExit(f"{' '.join(arguments)}: status {done.returncode}\n{done.stdout}{done.stderr}")
    return took


def main(repeats: int) -> None:
    """Measures every command in turns and prints the table."""
    for arguments in COMMANDS.values():
        seconds_of(arguments)  # fills the file cache
    took = {name: [] for name in COMMANDS}  # type: dict[str, list[float]]
    for _ in range(repeats):
        for name, arguments in COMMANDS.items():
            took[name].append(seconds_of(arguments))
    reference = statistics.median(took[REFERENCE])
    print(f"| command | median of {repeats}, s | times `{REFERENCE}` |\n|---|---|---|")
    for name, values in took.items():
        print(f"| {name} | {statistics.median(values):.1f} | {statistics.median(values) / reference:.1f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
