"""Whether a killed pipeline loses anything: SIGKILL at random times, the same command again, the unkilled result.

    python -m benchmarks.kills DEMO_COHORT FOLDER [KILLS]

Everything (store, workspace, temporary files) lies in FOLDER. First the pipeline runs to its end; then a second one is
killed, the whole tree or one random process of it, and started again, KILLS times (20 by default) before it may end.
"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import psutil

ROOT: Final = Path(__file__).resolve().parent.parent
OPEN_RUNS: Final = """
import mlflow
runs = mlflow.search_runs(search_all_experiments=True, output_format="list", max_results=5000)
print([run.data.tags.get("mlflow.runName") for run in runs if run.info.status == "RUNNING"])
"""


def environment(folder: Path) -> dict[str, str]:
    """Store, workspace and temporary files of one pipeline."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    return os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "DOCTOGRES_WORKSPACE": str(folder / "workspace"),
        "TMPDIR": str(folder / "tmp"),
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
    }


def start(data: Path, folder: Path) -> subprocess.Popen[str]:
    """The whole pipeline, as `mlflow run` starts it."""
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager", "local", "-P", f"data={data}"]
    log = (folder / "log.txt").open("a")
    return subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=log, text=True)


def finish(data: Path, folder: Path) -> dict[str, Any]:
    """Runs the pipeline to its end; the metrics of its result."""
    process = start(data, folder)
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the pipeline ended with status {process.returncode}; see {folder}/log.txt")
    return dict(json.loads(output.strip().splitlines()[-1])["metrics"])


def kill(process: subprocess.Popen[str], chance: random.Random, longest: float) -> str:
    """Kills the pipeline's tree, or one process of it; says which."""
    after = chance.uniform(3, longest)
    try:
        process.wait(after)
        return "ended before"
    except subprocess.TimeoutExpired:
        pass
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    victims = tree if chance.random() < 0.5 else [chance.choice(tree)]
    for victim in victims:
        victim.kill()
    process.wait()
    _, alive = psutil.wait_procs(tree, timeout=60)
    return f"{len(victims)} of {len(tree)} processes after {after:.0f} s, {len(alive)} alive a minute later"


def main(data: str, where: str, kills: str = "20") -> None:
    """Prints a line per kill and what is left at the end."""
    chance = random.Random(7)
    plain, killed = Path(where) / "plain", Path(where) / "killed"
    started = time.monotonic()
    environment(plain.resolve())
    expected = finish(Path(data).resolve(), plain.resolve())
    longest = time.monotonic() - started
    environment(killed.resolve())
    for number in range(int(kills)):
        print(number, kill(start(Path(data).resolve(), killed.resolve()), chance, longest), flush=True)
    result = finish(Path(data).resolve(), killed.resolve())
    left = [path.name for path in killed.rglob("*") if path.name.endswith(".partial")]
    left += [path.name for path in (killed / "tmp").iterdir()]
    open_runs = subprocess.run(
        [sys.executable, "-c", OPEN_RUNS], env=environment(killed.resolve()), capture_output=True, text=True
    )
    print(f"same metrics: {result == expected}; runs still open: {open_runs.stdout.strip()}; files left: {left}")


if __name__ == "__main__":
    main(*sys.argv[1:])
