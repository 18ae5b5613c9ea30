"""Whether a killed pipeline loses anything: SIGKILL at random times, the same command again, the unkilled result.

    python -m benchmarks.kills DEMO_COHORT FOLDER [KILLS [NAME=VALUE ...]]

Everything (store, workspace, temporary files) lies in FOLDER. First the pipeline runs to its end, with the parameters given;
then a second one is killed, the whole tree or one random process of it, and started again, KILLS times (20 by default) before
it may end.
"""

import json
import os
import random
import sqlite3
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
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
    }


def start(data: Path, folder: Path, options: tuple[str, ...]) -> subprocess.Popen[str]:
    """The whole pipeline, as `mlflow run` starts it."""
    command = [sys.executable, "-m", "mlflow", "run", str(ROOT), "--env-manager", "local"]
    command += [word for option in (f"data={data}", *options) for word in ("-P", option)]
    log = (folder / "log.txt").open("a")
    return subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=log, text=True)


def finish(data: Path, folder: Path, options: tuple[str, ...]) -> dict[str, Any]:
    """Runs the pipeline to its end; the metrics of its result."""
    process = start(data, folder, options)
    output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the pipeline ended with status {process.returncode}; see {folder}/log.txt")
    return dict(json.loads(output.strip().splitlines()[-1])["metrics"])


def running(folder: Path) -> str:
    """The run that began last of those that are open."""
    query = "SELECT name FROM runs WHERE status = 'RUNNING' ORDER BY start_time DESC"
    try:
        with sqlite3.connect(f"file:{folder}/mlflow.db?mode=ro", uri=True) as store:
            return str((store.execute(query).fetchone() or ["no run"])[0])
    except sqlite3.OperationalError:  # there is no store yet, or it is being written
        return "unknown"


def kill(process: subprocess.Popen[str], folder: Path, chance: random.Random, longest: float) -> str:
    """Kills the pipeline's tree, or one process of it; says which."""
    after = chance.uniform(3, longest)
    try:
        process.wait(after)
        return "ended before"
    except subprocess.TimeoutExpired:
        pass
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    stage = running(folder)
    victims = tree if chance.random() < 0.5 else [chance.choice(tree)]
    for victim in victims:
        victim.kill()
    process.wait()
    _, alive = psutil.wait_procs(tree, timeout=60)
    which = "all" if len(victims) == len(tree) else "the parent" if victims[0].pid == process.pid else "the child"
    return f"{which} of {len(tree)} processes after {after:.0f} s in {stage}, {len(alive)} alive a minute later"


def contents(folder: Path) -> set[str]:
    """The files of a workspace, by their paths in it."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def main(data: str, where: str, kills: str = "20", *options: str) -> None:
    """Prints a line per kill and what is left at the end."""
    chance = random.Random(7)
    cohort, plain, killed = Path(data).resolve(), Path(where).resolve() / "plain", Path(where).resolve() / "killed"
    started = time.monotonic()
    environment(plain)
    expected = finish(cohort, plain, options)
    longest = time.monotonic() - started
    print(f"unkilled: {longest:.0f} s", flush=True)
    environment(killed)
    for number in range(1, int(kills) + 1):
        print(number, kill(start(cohort, killed, options), killed, chance, longest), flush=True)
    result = finish(cohort, killed, options)
    open_runs = subprocess.run(
        [sys.executable, "-c", OPEN_RUNS], env=environment(killed), capture_output=True, text=True
    )
    print(f"same metrics: {result == expected}; runs still open: {open_runs.stdout.strip()}")
    differing = contents(plain / "workspace") ^ contents(killed / "workspace")
    print(f"files in one workspace only: {sorted(differing)}; temporary files: {sorted(contents(killed / 'tmp'))}")


if __name__ == "__main__":
    main(*sys.argv[1:])
