"""A standalone cluster of Spark on this machine: a master and workers, from the files of the Python package."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyspark
import pytest

HOME = Path(pyspark.__file__).parent
DEPLOY = "org.apache.spark.deploy"


@dataclass
class Cluster:
    """The running cluster; `master` is its address."""

    folder: Path
    master: str = ""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *words: str) -> None:
        environment = os.environ | {
            "SPARK_HOME": str(HOME),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYSPARK_PYTHON": sys.executable,
            "SPARK_NO_DAEMONIZE": "1",
        }
        with self.log(name).open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [HOME / "bin/spark-class", *words], env=environment, cwd=self.folder, stdout=log, stderr=log
            )

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def said(self, name: str, pattern: str) -> str:
        """Waits until a process's log holds this; what the first group of the pattern is."""
        for _ in range(600):
            if found := re.search(pattern, self.log(name).read_text()):
                return found[1]
            time.sleep(0.1)
        raise AssertionError(f"{name} never said {pattern}:\n{self.log(name).read_text()}")

    def add_worker(self, name: str) -> None:
        own = ("--host", "127.0.0.1", "--cores", "1", "--memory", "1g", "--webui-port", "0")
        self.start(name, f"{DEPLOY}.worker.Worker", *own, "--work-dir", str(self.folder / name), self.master)
        self.said(name, "(Successfully registered with master)")

    def executors(self, name: str) -> list[psutil.Process]:
        """The processes in which a worker runs tasks: Java's and, below, Python's."""
        return [
            child
            for child in psutil.Process(self.processes[name].pid).children(recursive=True)
            if child.status() != psutil.STATUS_ZOMBIE
        ]

    def kill(self, name: str) -> None:
        """Kills a worker with all that it runs, as the loss of its machine would."""
        for process in [*self.executors(name), psutil.Process(self.processes[name].pid)]:
            process.send_signal(signal.SIGKILL)

    def end(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(30)


@contextmanager
def cluster(folder: Path, workers: int = 2) -> Iterator[Cluster]:
    """A master and workers with a core and a gigabyte each, on the loopback addresses."""
    if not (shutil.which("java") or "JAVA_HOME" in os.environ):
        pytest.skip("needs Java: apt-get install default-jre-headless")
    made = Cluster(folder)
    try:
        made.start("master", f"{DEPLOY}.master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0")
        made.master = made.said("master", r"(spark://127\.0\.0\.1:[1-9]\d*)")
        for number in range(1, workers + 1):
            made.add_worker(f"worker{number}")
        yield made
    finally:
        made.end()
