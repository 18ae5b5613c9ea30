"""Whether a killed pipeline loses anything: SIGKILL at random times, the same command again, the unkilled result.

    python -m benchmarks.kills DEMO_COHORT FOLDER [KILLS [NAME=VALUE ...]]

Everything (store, workspace, temporary files) lies in FOLDER. First the pipeline runs to its end, with the parameters given;
then others are killed, the whole tree or one random process of it, and started again until they end, before which all of them
together are killed KILLS times (20 by default).
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
    (line,) = [line for line in output.splitlines() if line.startswith('{"stage"')]
    return dict(json.loads(line)["metrics"])


def running(folder: Path) -> str:
    """The run that began last of those that are open."""
    query = "SELECT name FROM runs WHERE status = 'RUNNING' ORDER BY start_time DESC"
    try:
        with sqlite3.connect(f"file:{folder}/mlflow.db?mode=ro", uri=True) as store:
            return str((store.execute(query).fetchone() or ["no run"])[0])
    except sqlite3.OperationalError:  # there is no store yet, or it is being written
        return "unknown"


def kill(process: subprocess.Popen[str], folder: Path, chance: random.Random, longest: float) -> str:
    """Kills the pipeline's tree, or one process of it; says which, or nothing if the pipeline ended before."""
    after = chance.uniform(3, longest)
    try:
        process.wait(after)
        return ""
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


def check(cohort: Path, plain: Path, killed: Path, expected: dict[str, Any], options: tuple[str, ...]) -> str:
    """Runs a pipeline that was killed to its end; what differs from one that was not."""
    result = finish(cohort, killed, options)
    asked = subprocess.run([sys.executable, "-c", OPEN_RUNS], env=environment(killed), capture_output=True, text=True)
    differing = sorted(contents(plain / "workspace") ^ contents(killed / "workspace"))
    temporary = sorted(contents(killed / "tmp"))
    return (
        f"same metrics: {result == expected}; open runs: {asked.stdout.strip()}; other files: {differing + temporary}"
    )


def main(data: str, where: str, kills: str = "20", *options: str) -> None:
    """Prints a line per kill, and what is left at the end of every pipeline."""
    chance = random.Random(7)
    cohort, plain = Path(data).resolve(), Path(where).resolve() / "plain"
    started = time.monotonic()
    environment(plain)
    expected = finish(cohort, plain, options)
    longest = time.monotonic() - started
    print(f"unkilled: {longest:.0f} s", flush=True)
    number = pipeline = 0
    while number < int(kills):
        pipeline += 1
        killed = Path(where).resolve() / f"killed{pipeline}"
        environment(killed)
        while number < int(kills) and (text := kill(start(cohort, killed, options), killed, chance, longest)):
            number += 1
            print(f"{number}: {text}", flush=True)
        print(f"pipeline {pipeline}: {check(cohort, plain, killed, expected, options)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
